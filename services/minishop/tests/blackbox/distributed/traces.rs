//! One trace from the client to the processed event.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};

use minishop_testkit::blocking::block_on;
use minishop_testkit::process::Process;
use minishop_testkit::rest::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::checker::settled;
use crate::support::shop::Shop;

/// Receives spans over OTLP/gRPC and keeps them, each with the name of its service.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_service in request.into_inner().resource_spans {
            let service = name(of_service.resource);
            let spans = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn name(resource: Option<Resource>) -> String {
    let named = resource.unwrap_or_default().attributes.into_iter().find(|attribute| attribute.key == "service.name");
    match named.and_then(|attribute| attribute.value?.value) {
        Some(StringValue(name)) => name,
        other => panic!("no service name: {other:?}"),
    }
}

impl Collector {
    /// Listens until the test ends.
    fn start() -> (Self, SocketAddr) {
        let (collector, (tell, told)) = (Self::default(), mpsc::channel());
        let service = TraceServiceServer::new(collector.clone());
        std::thread::spawn(move || {
            block_on(async {
                let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(incoming.local_addr().unwrap()).unwrap();
                Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
            });
        });
        (collector, told.recv().unwrap())
    }

    /// Returns the id of the only span of a service below `parent` in a trace.
    fn below(&self, service: &str, trace: &str, parent: &str) -> String {
        let all = self.0.lock().unwrap();
        let found =
            all.iter().filter(|(of, span)| of == service && hex(&span.trace_id) == trace && hex(&span.parent_span_id) == parent);
        let found: Vec<_> = found.collect();
        assert_eq!(found.len(), 1, "spans of {service} below {parent} of {trace}, of all {all:?}");
        hex(&found[0].1.span_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn one_trace_leads_from_the_clients_call_to_the_processed_event() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const CLIENT: &str = "b7ad6b7169203331";
    let shop = Shop::new();
    let (collector, addr) = Collector::start();
    let start = |mut command: Command| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{addr}"));
        Process::start(command)
    };
    let (mut api, mut worker) = (start(shop.command(&["api"])), start(shop.command(&["worker"])));
    let parent = format!("00-{TRACE}-{CLIENT}-01");
    let order = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;
    assert_eq!(post(api.addr("http"), "/orders", &[("traceparent", &parent)], order).status, 201);
    settled(&shop);
    // The last spans are sent before a process ends.
    assert_eq!((api.terminate(), worker.terminate()), (Some(0), Some(0)));
    let [created, processed] = ["orders.created", "orders.processed"].map(|topic| {
        let records = shop.records(topic);
        assert_eq!(records.len(), 1, "{topic}");
        records[0].headers.get("traceparent").unwrap().to_owned()
    });
    let called = collector.below("minishop-api", TRACE, CLIENT);
    assert_eq!(created, format!("00-{TRACE}-{called}-01"), "the created event comes of the call");
    let handled = collector.below("minishop-worker", TRACE, &called);
    assert_eq!(processed, format!("00-{TRACE}-{handled}-01"), "the processed event comes of the worker's span");
}
