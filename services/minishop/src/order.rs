//! `minishop order`: creates, reads, watches, cancels and announces orders on a running server, over its REST interface.

mod announce;
pub mod client;
pub mod events;
mod show;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::output::{self, Output};
use client::{Client, Failure, Server, encoded};

/// What to do with orders.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Create an order.
    Create {
        /// Customer id, 1 to 128 characters.
        #[arg(long)]
        customer: String,
        /// ISO 4217 currency code, such as BRL.
        #[arg(long)]
        currency: Option<String>,
        /// Idempotency key; repeated calls with it create one order. Generated unless given.
        #[arg(long)]
        idempotency_key: Option<String>,
        /// Items as product:quantity:price, such as p1:2:10.5.
        #[arg(required = true, value_parser = item)]
        items: Vec<Value>,
    },
    /// Read one order.
    Get {
        /// The order's id.
        id: String,
    },
    /// List orders, newest first.
    List {
        /// Only orders of this customer.
        #[arg(long)]
        customer: Option<String>,
        /// Only orders in this status: created, processed, cancelled or failed.
        #[arg(long)]
        status: Option<String>,
        /// Maximum number of orders.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Cancel an order that is not processed yet.
    Cancel {
        /// The order's id.
        id: String,
    },
    /// Show an order's timeline and the state of its parked events.
    Show {
        /// The order's id.
        id: String,
        /// Maximum number of timeline entries.
        #[arg(long, default_value_t = 500)]
        limit: usize,
    },
    /// Follow an order until its status is final; reconnects after a lost connection.
    Watch {
        /// The order's id.
        id: String,
        /// Print only versions above this one.
        #[arg(long)]
        since: Option<u32>,
    },
    /// Announce orders again that are still `created` and whose event is lost; exit 1 if a given one is skipped.
    Announce(announce::Lost),
}

/// Asks the server; exit 1 when it refuses, 69 when it does not answer.
pub async fn run(args: Args) -> ExitCode {
    let Args { server, what } = args;
    server.ask(async |client| ask(client, what, server.output).await).await
}

async fn ask(client: &Client, what: What, output: Output) -> Result<ExitCode, Failure> {
    let answer = match what {
        What::Create { customer, currency, idempotency_key, items } => {
            let mut order = json!({"customerId": customer, "items": items});
            if let Some(currency) = currency {
                order["currency"] = currency.into();
            }
            client.post("/orders", &order, idempotency_key.as_deref()).await?
        }
        What::Get { id } => client.get(&format!("/orders/{}", encoded(&id))).await?,
        What::Cancel { id } => client.post(&format!("/orders/{}/cancel", encoded(&id)), &json!({}), None).await?,
        What::Show { id, limit } => return Ok(show::print(&show::read(client, &id, limit).await?, output)),
        What::Announce(lost) => return Ok(announce::print(&announce::announce(client, &lost).await?, &lost, output)),
        What::Watch { id, since } => return Ok(watch::follow(client, &id, since, output).await),
        What::List { customer, status, limit } => list(client, customer.as_deref(), status.as_deref(), limit).await?,
    };
    Ok(print(&answer, output))
}

async fn list(client: &Client, customer: Option<&str>, status: Option<&str>, limit: usize) -> Result<Value, Failure> {
    let filters = [("customerId", customer), ("status", status)].into_iter();
    let given = filters.filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    let query: Vec<String> = given.map(|(name, value)| format!("&{name}={}", encoded(value))).collect();
    client.pages("/orders", &query.concat(), "orders", limit).await
}

fn print(answer: &Value, output: Output) -> ExitCode {
    if output == Output::Json {
        return output::json(answer);
    }
    let rows = answer.as_array().map_or_else(|| std::slice::from_ref(answer), Vec::as_slice);
    output::table(
        ["ORDER", "STATUS", "TOTAL", "CUSTOMER", "CREATED"],
        rows.iter().map(|row| ["orderId", "status", "total", "customerId", "createdAt"].map(|name| output::cell(row, name))),
    )
}

/// Parses `product:quantity:price`. The numbers go to the server as they were written; the server validates them.
fn item(text: &str) -> Result<Value, String> {
    let help = || "give product:quantity:price, such as p1:2:10.5".to_owned();
    let mut parts = text.rsplitn(3, ':');
    let (price, qty, product) = (parts.next(), parts.next(), parts.next());
    let is_number = |text: &&str| text.parse::<serde_json::Number>().is_ok();
    let product = product.filter(|product| !product.is_empty()).ok_or_else(help)?;
    let (qty, price) = (qty.filter(is_number).ok_or_else(help)?, price.filter(is_number).ok_or_else(help)?);
    // As JSON strings: numbers would be rounded here.
    Ok(json!({"productId": product, "qty": qty, "price": price}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_product_quantity_and_price() {
        assert_eq!(item("p1:2:10.5"), Ok(json!({"productId": "p1", "qty": "2", "price": "10.5"})));
        assert_eq!(item("a:b:1:0"), Ok(json!({"productId": "a:b", "qty": "1", "price": "0"})));
        let digits = "10.4999999999999999999999";
        assert_eq!(item(&format!("p1:1:{digits}")).map(|item| item["price"].clone()), Ok(json!(digits)));
        for bad in ["", "p1", "p1:2", ":2:1", "p1:two:1", "p1:2:"] {
            assert!(item(bad).is_err(), "{bad}");
        }
    }
}
