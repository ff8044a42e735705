//! The service that users add.

use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use trunkline::FileDescriptors;
use trunkline::bytes::Bytes;
use trunkline::server::Methods;
use trunkline::{Method, Request, Result, Sender, Service, Status, Streaming};

use crate::files::files_of;
use crate::index::Index;
use crate::responder::Responder;
use crate::v1::{ServerReflectionRequest, ServerReflectionResponse};
use crate::{v1, v1alpha};

/// The methods of both versions. Their messages have the same encoding, so they share one handler.
const METHODS: [Method; 2] = [
    Method::new("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    Method::new("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
];

/// The reflection service of a server.
///
/// It lists every service of the server, including those added later, and returns the descriptors of
/// generated services.
///
/// The crates of a program can contain `.proto` files that conflict. Reflection resolves this as follows,
/// regardless of the order in which services are added:
///
/// - If different files have the same name, all but one are served under a name that contains their package.
///   Imports in other files use that name, too.
/// - If several files define the same symbols, as versions of one file do, the file that contains everything
///   in the others is served. If there is none, [`Server::bind`](trunkline::Server::bind) and
///   [`Server::serve`](trunkline::Server::serve) fail. If the services are served in another way, such as by
///   a [`Router`](trunkline::Router), reflection calls fail with INTERNAL.
/// - Of the files of protobuf itself (package `google.protobuf`), the largest version is served, even if
///   others contradict it.
///
/// ```
/// use trunkline::Server;
/// use trunkline_reflection::Reflection;
///
/// let server = Server::new().add_service(Reflection::new());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Reflection {
    known: Vec<&'static FileDescriptors>,
    sets: Vec<Bytes>,
}

impl Reflection {
    /// Creates a reflection service for the server that it is added to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the files in `descriptors`, the `FILE_DESCRIPTORS` of a generated module.
    ///
    /// Use it for files that no generated service imports: those with messages that are sent in a
    /// `google.protobuf.Any`, with extensions, or with services that have no generated code.
    #[must_use]
    pub fn with_file_descriptors(mut self, descriptors: &'static FileDescriptors) -> Self {
        self.known.push(descriptors);
        self
    }

    /// Adds the files in `set`, a serialized `google.protobuf.FileDescriptorSet` as written by
    /// `protoc --include_imports -o`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if `set` cannot be decoded.
    pub fn with_file_descriptor_set(mut self, set: impl Into<Bytes>) -> Result<Self> {
        let set = set.into();
        files_of(&set).map_err(|error| {
            Status::invalid_argument(format!(
                "this is not a serialized google.protobuf.FileDescriptorSet: {error}"
            ))
        })?;
        self.sets.push(set);
        Ok(self)
    }
}

impl Service for Reflection {
    const NAME: &'static str = "grpc.reflection.v1.ServerReflection";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &v1::FILE_DESCRIPTORS;

    fn add_to(self, methods: &mut Methods) {
        methods.add_service(V1Alpha);
        let latest = Arc::new(Latest::new(self));
        let checked = latest.clone();
        methods.before_serving(move |methods| checked.of(methods).index().map(drop));
        methods.on_service_added(move |methods| {
            let served = latest.of(methods);
            for method in METHODS {
                methods.bidi_streaming(
                    method,
                    &served,
                    |served, requests, mut responses| async move {
                        served.respond(requests, &mut responses).await
                    },
                );
            }
        });
    }
}

/// The older version, which is listed too. Its method is added together with that of v1.
struct V1Alpha;

impl Service for V1Alpha {
    const NAME: &'static str = "grpc.reflection.v1alpha.ServerReflection";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &v1alpha::FILE_DESCRIPTORS;

    fn add_to(self, _: &mut Methods) {}
}

/// The last index, so that the check of a server and its calls read the descriptors once.
#[derive(Debug)]
struct Latest {
    more: Reflection,
    served: Mutex<Option<Arc<Served>>>,
}

impl Latest {
    fn new(more: Reflection) -> Self {
        let served = Mutex::new(None);
        Self { more, served }
    }

    /// Returns the index of the services of a server with these methods.
    fn of(&self, methods: &Methods) -> Arc<Served> {
        let mut latest = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Served::new(methods, &self.more);
        match &*latest {
            Some(served) if served.is_same(&now) => served.clone(),
            _ => latest.insert(Arc::new(now)).clone(),
        }
    }
}

/// The services of a server at one time.
#[derive(Debug)]
struct Served {
    services: Vec<&'static str>,
    descriptors: Vec<&'static FileDescriptors>,
    sets: Vec<Bytes>,
    /// Read when the server starts, or by the first call if the services are served in another way.
    index: OnceLock<Result<Arc<Index>>>,
}

impl Served {
    fn new(methods: &Methods, more: &Reflection) -> Self {
        Self {
            services: methods.service_names().to_vec(),
            descriptors: [methods.file_descriptors(), &more.known].concat(),
            sets: more.sets.clone(),
            index: OnceLock::new(),
        }
    }

    /// Returns whether both have the same services and descriptors.
    fn is_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.descriptors, &other.descriptors);
        self.services == other.services
            && one.len() == two.len()
            && one.iter().zip(two).all(|(&one, &two)| ptr::eq(one, two))
    }

    async fn respond(
        &self,
        mut requests: Request<Streaming<ServerReflectionRequest>>,
        responses: &mut Sender<ServerReflectionResponse>,
    ) -> Result<()> {
        let mut responder = Responder::new(self.index()?);
        while let Some(request) = requests.message().await? {
            responses.send(responder.respond(request)).await?;
        }
        Ok(())
    }

    fn index(&self) -> Result<Arc<Index>> {
        let index = self.index.get_or_init(|| {
            let index = Index::new(&self.services, &self.descriptors, &self.sets);
            index.map(Arc::new).map_err(|error| {
                Status::internal(format!("reflection cannot read the descriptors: {error}"))
            })
        });
        index.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct More;

    impl Service for More {
        const NAME: &'static str = "more.More";

        fn add_to(self, _: &mut Methods) {}
    }

    #[test]
    fn descriptors_are_read_once_for_a_server_and_again_after_an_add() {
        let latest = Latest::new(Reflection::new());
        let mut methods = Methods::default();
        methods.add_service(Reflection::new());
        let served = latest.of(&methods);
        served.index().unwrap();
        let index = latest.of(&methods).index().unwrap();
        assert!(Arc::ptr_eq(&served.index().unwrap(), &index));
        methods.add_service(More);
        let later = latest.of(&methods);
        assert!(!Arc::ptr_eq(&served, &later));
        assert_eq!(later.services.last(), Some(&"more.More"));
    }
}
