//! What users add.

use std::mem;
use std::sync::{Arc, OnceLock};

use trunkline::{Bytes, Method, Request, Result, Router, Sender, Service, Status, Streaming};

use crate::answers::Answers;
use crate::index::{Index, files_of};
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
#[derive(Clone, Debug, Default)]
pub struct Reflection {
    more: Vec<Bytes>,
}

impl Reflection {
    /// Tells of the services of the server to which it is added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of the files in `set` as well, a serialized `google.protobuf.FileDescriptorSet`.
    ///
    /// That is for what no service imports, such as messages that are sent in a
    /// `google.protobuf.Any`, extensions, and services without generated code. `protoc
    /// --include_imports -o` writes such a set, and each generated module has one as
    /// `FILE_DESCRIPTOR_SET`.
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
        self.more.push(set);
        Ok(self)
    }
}

impl Service for Reflection {
    const NAME: &'static str = "grpc.reflection.v1.ServerReflection";
    const FILE_DESCRIPTOR_SET: &'static [u8] = v1::FILE_DESCRIPTOR_SET;

    fn add_to(self, router: &mut Router) {
        *router = mem::take(router).add(V1Alpha);
        router.after_each_add(move |router| {
            let served = Arc::new(Served::new(router, &self.more));
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
    const FILE_DESCRIPTOR_SET: &'static [u8] = v1alpha::FILE_DESCRIPTOR_SET;

    fn add_to(self, _: &mut Router) {}
}

/// The services of a router at one time.
#[derive(Debug)]
struct Served {
    services: Vec<&'static str>,
    sets: Vec<Bytes>,
    /// Read when somebody asks: a server that nobody asks has not waited for it.
    index: OnceLock<Result<Arc<Index>>>,
}

impl Served {
    fn new(router: &Router, more: &[Bytes]) -> Self {
        let sets = router.file_descriptor_sets().iter();
        let sets = sets.map(|set| Bytes::from_static(set));
        Self {
            services: router.services().to_vec(),
            sets: sets.chain(more.iter().cloned()).collect(),
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
            let index = Index::new(&self.services, &self.sets);
            index.map(Arc::new).map_err(|error| {
                Status::internal(format!(
                    "the descriptors of a service are not right: {error}"
                ))
            })
        });
        index.clone()
    }
}
