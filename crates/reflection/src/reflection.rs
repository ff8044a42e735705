//! What users add.

use std::mem;
use std::sync::{Arc, OnceLock};

use trunkline::{
    Bytes, FileDescriptors, Method, Request, Result, Router, Sender, Service, Status, Streaming,
};

use crate::answers::Answers;
use crate::files::files_of;
use crate::index::Index;
use crate::v1::{ServerReflectionRequest, ServerReflectionResponse};
use crate::{v1, v1alpha};

/// The methods of both versions. Their messages are the same on the wire, so one handler has both.
const METHODS: [Method; 2] = [
    Method::new("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    Method::new("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
];

/// The service that tells clients what a server serves.
///
/// It lists every service of the server, whether added before or after it, and gives the descriptors
/// of those that have any: generated ones do.
///
/// Crates may bring different files of one name: all but the first are served under another name,
/// with their package before it, and imports follow. Of versions of one file that with more in it is
/// served. Files that define a symbol in different ways cannot be in one pool of descriptors: they
/// are an error of [`Server::bind`](trunkline::Server::bind) and
/// [`Server::serve`](trunkline::Server::serve); where a router is served in another way, calls of
/// reflection are INTERNAL and say so.
#[derive(Clone, Debug, Default)]
pub struct Reflection {
    known: Vec<&'static FileDescriptors>,
    sets: Vec<Bytes>,
}

impl Reflection {
    /// Tells of the services of the server to which it is added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of the files in `descriptors` as well: `FILE_DESCRIPTORS` of a generated module.
    ///
    /// That is for what no service imports, such as messages that are sent in a
    /// `google.protobuf.Any`, extensions, and services that are written by hand.
    #[must_use]
    pub fn with_file_descriptors(mut self, descriptors: &'static FileDescriptors) -> Self {
        self.known.push(descriptors);
        self
    }

    /// Tells of the files in `set` as well, a serialized `google.protobuf.FileDescriptorSet`, as
    /// `protoc --include_imports -o` writes it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if `set` cannot be read.
    pub fn with_file_descriptor_set(mut self, set: impl Into<Bytes>) -> Result<Self> {
        let set = set.into();
        files_of(&set).map_err(|error| {
            Status::invalid_argument(format!(
                "this is no serialized google.protobuf.FileDescriptorSet: {error}"
            ))
        })?;
        self.sets.push(set);
        Ok(self)
    }
}

impl Service for Reflection {
    const NAME: &'static str = "grpc.reflection.v1.ServerReflection";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &v1::FILE_DESCRIPTORS;

    fn add_to(self, router: &mut Router) {
        *router = mem::take(router).add(V1Alpha);
        let more = self.clone();
        router.before_serving(move |router| Served::new(router, &more).index().map(drop));
        router.after_each_add(move |router| {
            let served = Arc::new(Served::new(router, &self));
            for method in METHODS {
                router.bidi_streaming(
                    method,
                    &served,
                    |served, requests, mut replies| async move {
                        served.answer(requests, &mut replies).await
                    },
                );
            }
        });
    }
}

/// The name of the older version, so that it is listed too. Its method is added with that of v1.
struct V1Alpha;

impl Service for V1Alpha {
    const NAME: &'static str = "grpc.reflection.v1alpha.ServerReflection";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &v1alpha::FILE_DESCRIPTORS;

    fn add_to(self, _: &mut Router) {}
}

/// The services of a router at one time.
#[derive(Debug)]
struct Served {
    services: Vec<&'static str>,
    descriptors: Vec<&'static FileDescriptors>,
    sets: Vec<Bytes>,
    /// Read when somebody asks: a server that nobody asks does not keep it.
    index: OnceLock<Result<Arc<Index>>>,
}

impl Served {
    fn new(router: &Router, more: &Reflection) -> Self {
        Self {
            services: router.services().to_vec(),
            descriptors: [router.file_descriptors(), &more.known].concat(),
            sets: more.sets.clone(),
            index: OnceLock::new(),
        }
    }

    async fn answer(
        &self,
        mut requests: Request<Streaming<ServerReflectionRequest>>,
        replies: &mut Sender<ServerReflectionResponse>,
    ) -> Result<()> {
        let mut answers = Answers::new(self.index()?);
        while let Some(request) = requests.message().await? {
            replies.send(answers.answer(request)).await?;
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
