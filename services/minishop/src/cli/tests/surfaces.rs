//! Every call of the contracts has a route and a command, and the command asks for that route.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::ExitCode;

use clap::Parser as _;
use minishop_contracts::{FILE_DESCRIPTOR_SET, ROUTES, Route};
use prost_reflect::DescriptorPool;

use super::super::{Cli, Command, EXIT_NO};
use super::{command, leaves};

/// Every call, and a line that makes it; a call may have more than one command.
const COMMANDS: [(&str, &str); 21] = [
    ("/minishop.orders.v1.OrderService/CreateOrder", "order create --customer c1 p1:2:10.5"),
    ("/minishop.orders.v1.OrderService/GetOrder", "order get x"),
    ("/minishop.orders.v1.OrderService/ListOrders", "order list"),
    ("/minishop.orders.v1.OrderService/CancelOrder", "order cancel x"),
    ("/minishop.orders.v1.OrderService/WatchOrder", "order watch x"),
    ("/minishop.orders.v1.OrderService/GetOrderTimeline", "order show x"),
    ("/minishop.ops.v1.OperationsService/GetStatus", "dlq status"),
    ("/minishop.ops.v1.OperationsService/WatchStatus", "dlq status --watch"),
    ("/minishop.ops.v1.OperationsService/ListDeadLetters", "dlq list"),
    ("/minishop.ops.v1.OperationsService/GetDeadLetter", "dlq show x"),
    ("/minishop.ops.v1.OperationsService/ListDeadLetterGroups", "dlq groups"),
    ("/minishop.ops.v1.OperationsService/RedriveDeadLetters", "dlq redrive x"),
    ("/minishop.ops.v1.OperationsService/DiscardDeadLetters", "dlq discard x"),
    ("/minishop.ops.v1.OperationsService/ListParkedKeys", "dlq keys"),
    ("/minishop.ops.v1.OperationsService/ListOperations", "dlq operations"),
    ("/minishop.ops.v1.OperationsService/GetOperation", "dlq operation x"),
    ("/minishop.ops.v1.OperationsService/ControlOperation", "dlq pause x"),
    ("/minishop.ops.v1.OperationsService/ControlOperation", "dlq resume x"),
    ("/minishop.ops.v1.OperationsService/ControlOperation", "dlq cancel x"),
    ("/minishop.ops.v1.OperationsService/AnnounceOrders", "order announce x"),
    ("/minishop.ops.v1.OperationsService/ListAudit", "dlq audit"),
];

fn calls() -> BTreeSet<String> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name())).collect()
}

#[test]
fn every_call_has_a_route_and_a_command_and_every_command_a_call() {
    let calls = calls();
    let routed: BTreeSet<String> = ROUTES.iter().map(|route| route.rpc.to_owned()).collect();
    assert_eq!(routed, calls, "routes and calls");
    let commanded: BTreeSet<String> = COMMANDS.iter().map(|(rpc, _)| (*rpc).to_owned()).collect();
    assert_eq!(commanded, calls, "this table and the calls");
    let named: BTreeSet<String> =
        COMMANDS.iter().map(|(_, line)| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    let there: BTreeSet<String> = leaves("order").into_iter().chain(leaves("dlq")).collect();
    assert_eq!(named, there, "this table and the commands that ask a server");
    assert!(named.iter().all(|words| command(&words.split(' ').collect::<Vec<_>>()).is_some_and(|c| !c.is_hide_set())));
}

/// Runs a command against a server that refuses everything; returns the method and path of its first request.
fn asked(line: &str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let words = ["minishop"].into_iter().chain(line.split(' ')).chain(["--server", &server]);
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
    let refusing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = String::new();
        BufReader::new(&stream).read_line(&mut first).unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        first
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = match cli.command {
        Some(Command::Order(args)) => runtime.block_on(crate::order::run(args)),
        Some(Command::Dlq(args)) => runtime.block_on(crate::dlq::run(args)),
        other => panic!("{line} asks no server: {other:?}"),
    };
    let first = refusing.join().unwrap();
    assert_eq!(code, ExitCode::from(EXIT_NO), "{line} was refused");
    let mut parts = first.split(' ');
    let (method, target) = (parts.next().unwrap(), parts.next().unwrap());
    (method.to_owned(), target.split('?').next().unwrap().to_owned())
}

#[test]
fn every_command_asks_for_the_route_of_its_call() {
    for (rpc, line) in COMMANDS {
        let Route { method, path, .. } = ROUTES.iter().find(|route| route.rpc == rpc).unwrap();
        let path = path.replace("{order_id}", "x").replace("{id}", "x");
        assert_eq!(asked(line), ((*method).to_owned(), path), "minishop {line}");
    }
}
