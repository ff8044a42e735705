//! What a subscriber of `tracing` is told of calls.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use trunkline::{Code, Raw, Request, Server};
use trunkline_tests::fixture::{Echo, SERVER, UNARY, With, client_of, nothing, raw, serve};
use trunkline_tests::own_process::{own_process, passes};

/// Keeps the fields of spans, and the messages of events with the span they were in.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    spans: Vec<BTreeMap<String, String>>,
    entered: Vec<usize>,
    events: Vec<(Option<usize>, String)>,
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("trunkline") || metadata.target() == module_path!()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut seen = self.0.lock().unwrap();
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        seen.spans.push(fields);
        Id::from_u64(seen.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut seen = self.0.lock().unwrap();
        values.record(&mut Fields(&mut seen.spans[span.into_u64() as usize - 1]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let mut seen = self.0.lock().unwrap();
        let within = seen.entered.last().copied();
        seen.events.push((within, format!("{fields:?}")));
    }

    fn enter(&self, span: &Id) {
        self.0
            .lock()
            .unwrap()
            .entered
            .push(span.into_u64() as usize - 1);
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }
}

/// One test, in a process of its own: what is enabled is enabled for the whole process.
#[tokio::test]
async fn calls_have_spans_and_what_handlers_log_is_in_them() {
    let name = "calls_have_spans_and_what_handlers_log_is_in_them";
    if let Some(program) = own_process(module_path!(), name) {
        return passes(program);
    }
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).expect("the only one");
    a_call_has_a_span_on_each_side_with_method_status_sizes_and_times(&spans).await;
    what_a_handler_logs_is_in_the_span_of_its_call_and_so_is_its_panic(&spans).await;
}

async fn a_call_has_a_span_on_each_side_with_method_status_sizes_and_times(spans: &Spans) {
    let address = serve(Server::new().add_service(Echo)).await;
    let client = client_of(&address).await;
    let mut responses = client
        .server_streaming::<_, Raw>(SERVER, raw("abc"))
        .await
        .unwrap();
    while responses.message().await.unwrap().is_some() {}
    let seen = spans.0.lock().unwrap();
    assert_eq!(seen.spans.len(), 2, "{:?}", seen.spans);
    for span in &seen.spans {
        let is_client = span["otel.kind"] == "client";
        for (field, value) in [
            ("rpc.system.name", "grpc"),
            ("rpc.method", "test.Fixture/ServerStreaming"),
            ("rpc.status_code", "OK"),
            ("sent.messages", if is_client { "1" } else { "3" }),
            ("sent.bytes", if is_client { "8" } else { "18" }),
            ("received.messages", if is_client { "3" } else { "1" }),
            ("received.bytes", if is_client { "18" } else { "8" }),
        ] {
            assert_eq!(
                span.get(field).map(String::as_str),
                Some(value),
                "{field} of {span:?}"
            );
        }
        assert_eq!(span.contains_key("stream_us"), is_client, "{span:?}");
        assert_eq!(span.contains_key("peer"), !is_client, "{span:?}");
        assert!(
            span.contains_key("head_us") && span.contains_key("total_us"),
            "{span:?}"
        );
    }
}

async fn what_a_handler_logs_is_in_the_span_of_its_call_and_so_is_its_panic(spans: &Spans) {
    let service = With(|methods: &mut trunkline::server::Methods| {
        methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| async {
            tracing::info!("at work");
            tokio::task::yield_now().await;
            panic!("the text of the panic");
            #[allow(unreachable_code)]
            Ok(raw(""))
        });
    });
    let address = serve(Server::new().add_service(service)).await;
    let client = client_of(&address).await;
    let status = client.unary::<_, Raw>(UNARY, raw("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::INTERNAL);
    assert!(
        !status.message().contains("the text of the panic"),
        "{status}"
    );
    let seen = spans.0.lock().unwrap();
    for text in ["at work", "the text of the panic"] {
        let (span, _) = seen
            .events
            .iter()
            .find(|(_, event)| event.contains(text))
            .expect(text);
        let span = &seen.spans[span.expect("it is in a span")];
        assert_eq!(span["otel.kind"], "server", "{text}");
    }
}
