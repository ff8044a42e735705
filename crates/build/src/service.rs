//! The Rust of a service: constants, a client, a trait for handlers and a server type.
//!
//! The output is a table. Each method is a constant, a signature with one call for the
//! client, a signature for handlers, and one line that tells the router. Layout is our own, since a
//! general formatter takes twice the lines for the same text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::rc::Rc;

use prost_build::{Comments, Method, Module, Service, ServiceGenerator};

use crate::names::{DESCRIPTORS, MethodNames, Names, ServiceNames, joined};

/// Which halves of a service are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sides {
    Both,
    Client,
    Server,
    Neither,
}

/// Whether the methods of handlers have bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// Users implement every method.
    Required,
    /// A method that users leave out returns UNIMPLEMENTED.
    Default,
}

/// Text of services by module, shared with the generator that prost-build owns.
pub(crate) type Texts = Rc<RefCell<HashMap<Module, String>>>;

/// Writes services for prost-build.
pub(crate) struct Generator {
    pub(crate) names: Rc<RefCell<Names>>,
    pub(crate) sides: Sides,
    pub(crate) bodies: Bodies,
    pub(crate) client_feature: Option<String>,
    pub(crate) extern_paths: Vec<String>,
    pub(crate) texts: Texts,
}

impl ServiceGenerator for Generator {
    /// Writes nothing of its own into `messages`, which goes through a formatter.
    fn generate(&mut self, service: Service, messages: &mut String) {
        // prost-build panics on a package with a service and no text.
        messages.push('\n');
        let mut names = self.names.borrow_mut();
        let package = names.markers.proto(&service.package);
        if self.sides == Sides::Neither || self.is_extern(&package) {
            return;
        }
        let module = names.module(&service.package);
        let full_name = joined(&package, &service.proto_name);
        let methods = service.methods.iter().map(|method| {
            let constant = names.constant(&module, &service.proto_name, &method.proto_name);
            (
                names.method(&full_name, &method.proto_name).clone(),
                constant,
            )
        });
        let methods = methods.collect();
        let table = Table {
            names: names.service(&module, &full_name, &service.name),
            service: &service,
            full_name,
            methods,
            client_feature: self.client_feature.as_deref(),
        };
        let mut text = table.constants();
        if self.sides != Sides::Server {
            text.push_str(&table.client());
        }
        if self.sides != Sides::Client {
            text.push_str(&table.handlers(self.bodies));
            text.push_str(&table.server());
        }
        let mut texts = self.texts.borrow_mut();
        texts.entry(module).or_default().push_str(&text);
    }
}

impl Generator {
    /// Whether the service is in a package that comes from elsewhere.
    fn is_extern(&self, package: &str) -> bool {
        let path = format!(".{package}.");
        let mut paths = self.extern_paths.iter();
        paths.any(|start| path.starts_with(&format!("{start}.")))
    }
}

/// Lints that do not apply to generated code, for the items that users see.
///
/// An attribute of the module would be shorter, but included text may not bring one along.
pub(crate) const ALLOW: &str = "\
#[allow(dead_code, missing_docs, unreachable_pub)]
#[allow(clippy::all, clippy::pedantic, clippy::nursery)]";

/// The width of a line of services.
const WIDTH: usize = 100;

/// One service with the names of what is written for it.
struct Table<'a> {
    service: &'a Service,
    full_name: String,
    names: ServiceNames,
    /// The names of each method, and of its constant.
    methods: Vec<(MethodNames, String)>,
    /// The feature that the client is behind.
    client_feature: Option<&'a str>,
}

impl Table<'_> {
    fn methods(&self) -> impl Iterator<Item = (&Method, &MethodNames, &String)> {
        let methods = self.service.methods.iter().zip(&self.methods);
        methods.map(|(method, (names, constant))| (method, names, constant))
    }

    fn constants(&self) -> String {
        let mut text = String::from("\n");
        for (method, _, constant) in self.methods() {
            let path = format!("/{}/{}", self.full_name, method.proto_name);
            let head = format!("const {constant}: ::trunkline::Method =");
            let tail = format!("::trunkline::Method::new(\"{path}\");");
            let space = if head.len() + 1 + tail.len() <= WIDTH {
                " "
            } else {
                "\n    "
            };
            if self.client_feature.is_some() {
                line(&mut text, 0, "#[allow(dead_code)]");
            }
            line(&mut text, 0, &format!("{head}{space}{tail}"));
        }
        text
    }

    fn client(&self) -> String {
        let client = &self.names.client;
        let mut text = String::from("\n");
        let about = format!("Calls `{}`. Cloning a client is cheap.", self.full_name);
        docs(&mut text, 0, &self.service.comments, &about);
        self.deprecation(&mut text);
        let gate = self
            .client_feature
            .map(|feature| format!("#[cfg(feature = {feature:?})]\n"));
        let gate = gate.unwrap_or_default();
        let _ = write!(
            text,
            "\
{gate}{ALLOW}
#[derive(Clone, Debug)]
pub struct {client}(::trunkline::Client);

{gate}{deprecated}{ALLOW}
impl {client} {{
    /// Connects to `targets`: an address, text such as `host:port`, `http://host:port` or `unix:/path`,
    /// or a list of either.
    pub async fn connect(
        targets: impl ::core::convert::Into<::trunkline::channel::Targets>,
    ) -> ::trunkline::Result<Self> {{
        ::trunkline::Channel::connect(targets).await.map(Self::new)
    }}

    /// Calls the service over `channel`.
    pub fn new(channel: ::trunkline::Channel) -> Self {{
        Self(::trunkline::Client::new(channel))
    }}

    /// Returns the channel.
    pub fn channel(&self) -> &::trunkline::Channel {{
        self.0.channel()
    }}

    /// Returns a client on what `change` makes of the channel, such as one with a timeout for each call.
    #[must_use]
    pub fn with_channel(
        self,
        change: impl ::core::ops::FnOnce(::trunkline::Channel) -> ::trunkline::Channel,
    ) -> Self {{
        Self(self.0.with_channel(change))
    }}
",
            deprecated = self.allow_deprecated(),
        );
        for (method, names, constant) in self.methods() {
            text.push('\n');
            let about = format!("Calls `{}/{}`.", self.full_name, method.proto_name);
            docs(&mut text, 1, &method.comments, &about);
            if method.options.deprecated() {
                line(&mut text, 1, "#[deprecated]");
            }
            let kind = Kind::of(method);
            let head = format!("pub fn {}", names.client);
            let tail = format!("-> ::trunkline::Call<{}> {{", kind.outcome);
            signature(&mut text, &head, kind.request.as_slice(), &tail);
            let argument = kind.request.map_or("", |_| ", request");
            line(
                &mut text,
                2,
                &format!("self.0.{}({constant}{argument})", kind.function),
            );
            line(&mut text, 1, "}");
        }
        text.push_str("}\n");
        text
    }

    fn handlers(&self, bodies: Bodies) -> String {
        let handlers = &self.names.handlers;
        let mut text = String::from("\n");
        let about = format!(
            "Handlers of `{}`: implement the methods as `async fn`.",
            self.full_name
        );
        docs(&mut text, 0, &self.service.comments, &about);
        self.deprecation(&mut text);
        text.push_str(ALLOW);
        text.push('\n');
        let bounds = "::core::marker::Send + ::core::marker::Sync + 'static";
        line(&mut text, 0, &format!("pub trait {handlers}: {bounds} {{"));
        for (at, (method, names, _)) in self.methods().enumerate() {
            if at > 0 {
                text.push('\n');
            }
            let about = format!("Handles `{}/{}`.", self.full_name, method.proto_name);
            docs(&mut text, 1, &method.comments, &about);
            let kind = Kind::of(method);
            let output = format!("Output = ::trunkline::Result<{}>", kind.returned);
            let end = match bodies {
                Bodies::Required => ";",
                Bodies::Default => " {",
            };
            let tail =
                format!("-> impl ::core::future::Future<{output}> + ::core::marker::Send{end}");
            let head = format!("fn {}", names.handler);
            signature(&mut text, &head, &kind.parameters, &tail);
            if bodies == Bodies::Default {
                let path = format!("{}/{}", self.full_name, method.proto_name);
                line(&mut text, 2, kind.unused);
                line(
                    &mut text,
                    2,
                    &format!("::trunkline::server::unimplemented(\"{path}\")"),
                );
                line(&mut text, 1, "}");
            }
        }
        text.push_str("}\n");
        text
    }

    fn server(&self) -> String {
        let ServiceNames {
            handlers,
            server,
            methods,
            ..
        } = &self.names;
        // A service may be called S.
        let parameter = if handlers == "S" { "T" } else { "S" };
        let mut text = String::from("\n");
        let about = format!("Serves `{}` with the handlers in it.", self.full_name);
        docs(&mut text, 0, &Comments::default(), &about);
        self.deprecation(&mut text);
        let server_type = format!("::trunkline::server::ServiceServer<{methods}, {parameter}>;");
        let head = format!("pub type {server}<{parameter}> =");
        let is_short = head.len() + 1 + server_type.len() <= WIDTH;
        let space = if is_short { " " } else { "\n    " };
        let about = format!("The table of the methods of `{}`.", self.full_name);
        let _ = write!(
            text,
            "\
{ALLOW}
{head}{space}{server_type}

/// {about}
{ALLOW}
#[derive(Clone, Copy, Debug)]
pub enum {methods} {{}}

{deprecated}impl<{parameter}: {handlers}> ::trunkline::server::ServiceMethods<{parameter}> for {methods} {{
    const NAME: &'static str = \"{name}\";
    const FILE_DESCRIPTORS: &'static ::trunkline::FileDescriptors = &{DESCRIPTORS};

",
            deprecated = self.allow_deprecated(),
            name = self.full_name,
        );
        self.registration(&mut text, parameter);
        text
    }

    /// The function that registers each method with its handler.
    fn registration(&self, text: &mut String, parameter: &str) {
        let is_empty = self.service.methods.is_empty();
        let (service, registry, end) = match is_empty {
            true => ("_", "_", "{}"),
            false => ("service", "methods", "{"),
        };
        let types = format!(
            "&::std::sync::Arc<{parameter}>, {registry}: &mut ::trunkline::server::Methods"
        );
        line(text, 1, &format!("fn add_to({service}: {types}) {end}"));
        for (method, names, constant) in self.methods() {
            let kind = Kind::of(method);
            let head = format!("methods.{}({constant}, service, ", kind.function);
            let head = format!("{head}|service, {}| async move {{", kind.closure);
            line(text, 2, &head);
            let (handler, arguments) = (&names.handler, kind.arguments);
            let call = format!("{parameter}::{handler}(&service, {arguments}).await");
            line(text, 3, &call);
            line(text, 2, "});");
        }
        if !is_empty {
            line(text, 1, "}");
        }
        text.push_str("}\n");
    }

    /// Marks an item as deprecated with its service.
    fn deprecation(&self, text: &mut String) {
        if self.service.options.deprecated() {
            line(text, 0, "#[deprecated]");
        }
    }

    /// Lets generated code name what it has marked itself.
    fn allow_deprecated(&self) -> &'static str {
        let mut methods = self.service.methods.iter();
        let any = self.service.options.deprecated() || methods.any(|it| it.options.deprecated());
        if any { "#[allow(deprecated)]\n" } else { "" }
    }
}

/// What the four kinds of method say differently.
struct Kind {
    /// The function of client and router.
    function: &'static str,
    /// What a client passes; nothing if it sends a stream.
    request: Option<String>,
    /// What a client's call resolves to.
    outcome: String,
    /// What a handler takes, and returns if all is well.
    parameters: Vec<String>,
    returned: String,
    /// What the router passes to a handler: the parameters of the closure, and the arguments.
    closure: &'static str,
    arguments: &'static str,
    /// Lets go of what a handler takes, where it does nothing with it.
    unused: &'static str,
}

impl Kind {
    fn of(method: &Method) -> Self {
        let (request, response) = (&method.input_type, &method.output_type);
        let one = format!("request: ::trunkline::Request<{request}>");
        let many = format!("requests: ::trunkline::Request<::trunkline::Streaming<{request}>>");
        let responses = format!("responses: &mut ::trunkline::Sender<{response}>");
        match (method.client_streaming, method.server_streaming) {
            (false, false) => Self {
                function: "unary",
                request: Some(format!("request: {request}")),
                outcome: format!("::trunkline::Response<{response}>"),
                parameters: vec![one],
                returned: response.clone(),
                closure: "request",
                arguments: "request",
                unused: "let _ = request;",
            },
            (false, true) => Self {
                function: "server_streaming",
                request: Some(format!("request: {request}")),
                outcome: format!("::trunkline::Streaming<{response}>"),
                parameters: vec![one, responses],
                returned: "()".to_owned(),
                closure: "request, mut responses",
                arguments: "request, &mut responses",
                unused: "let _ = (request, responses);",
            },
            (true, false) => Self {
                function: "client_streaming",
                request: None,
                outcome: format!("::trunkline::ClientStream<{request}, {response}>"),
                parameters: vec![many],
                returned: response.clone(),
                closure: "requests",
                arguments: "requests",
                unused: "let _ = requests;",
            },
            (true, true) => Self {
                function: "bidi_streaming",
                request: None,
                outcome: format!(
                    "(::trunkline::Sender<{request}>, ::trunkline::Streaming<{response}>)"
                ),
                parameters: vec![many, responses],
                returned: "()".to_owned(),
                closure: "requests, mut responses",
                arguments: "requests, &mut responses",
                unused: "let _ = (requests, responses);",
            },
        }
    }
}

/// Writes the comment of an item, then what is to be said of every such item.
fn docs(text: &mut String, depth: usize, comments: &Comments, about: &str) {
    for comment in comments.leading.iter().chain(&comments.trailing) {
        line(text, depth, &format!("///{comment}"));
    }
    if !comments.leading.is_empty() && depth == 0 {
        line(text, depth, "///");
    }
    if comments.leading.is_empty() || depth == 0 {
        line(text, depth, &format!("/// {about}"));
    }
}

/// Writes the signature of a method on one line, or two, or with a line for each parameter.
fn signature(text: &mut String, head: &str, parameters: &[String], result: &str) {
    let mut short = format!("{head}(&self");
    for parameter in parameters {
        short.push_str(&format!(", {parameter}"));
    }
    short.push(')');
    const INDENT: usize = 4;
    if INDENT + short.len() + 1 + result.len() <= WIDTH {
        line(text, 1, &format!("{short} {result}"));
    } else if INDENT + short.len() <= WIDTH {
        line(text, 1, &short);
        line(text, 1, result);
    } else {
        line(text, 1, &format!("{head}("));
        line(text, 2, "&self,");
        for parameter in parameters {
            line(text, 2, &format!("{parameter},"));
        }
        line(text, 1, &format!(") {result}"));
    }
}

fn line(text: &mut String, depth: usize, line: &str) {
    for _ in 0..depth {
        text.push_str("    ");
    }
    text.push_str(line);
    text.push('\n');
}
