//! Requests of one stream to responses.

use std::collections::HashSet;
use std::sync::Arc;

use trunkline::Code;

use crate::index::Index;
use crate::v1::server_reflection_request::MessageRequest;
use crate::v1::server_reflection_response::MessageResponse;
use crate::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

/// Characters of a name that an error shows; longer ones are cut.
const SHOWN_MAX: usize = 200;

/// The responses of one stream, and what it has been sent.
#[derive(Debug)]
pub(crate) struct Responder {
    index: Arc<Index>,
    /// One for each file of the index at most.
    sent: HashSet<usize>,
}

impl Responder {
    pub(crate) fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            sent: HashSet::new(),
        }
    }

    /// server-reflection.md, "Reverse proxy traversal": a request results in a response or in an error
    /// code, which is a message as well: the stream goes on.
    pub(crate) fn respond(&mut self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let response = match &request.message_request {
            Some(request) => self.response(request),
            None => Err(error(
                Code::INVALID_ARGUMENT,
                "the request asks for nothing, or for what this server does not know".to_owned(),
            )),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response.unwrap_or_else(MessageResponse::ErrorResponse)),
        }
    }

    fn response(&mut self, request: &MessageRequest) -> Result<MessageResponse, ErrorResponse> {
        match request {
            MessageRequest::FileByFilename(name) => {
                let file = self.index.file(name);
                self.files(file, || format!("no file {}", shown(name)))
            }
            MessageRequest::FileContainingSymbol(name) => {
                let file = self.index.file_of_symbol(name);
                self.files(file, || format!("no symbol {}", shown(name)))
            }
            MessageRequest::FileContainingExtension(extension) => {
                let (message, number) = (&extension.containing_type, extension.extension_number);
                let file = self.index.file_of_extension(message, number);
                self.files(file, || {
                    format!("no extension {number} of {}", shown(message))
                })
            }
            MessageRequest::AllExtensionNumbersOfType(message) => {
                let numbers = self.index.extensions_of(message);
                let response = numbers.map(|extension_number| ExtensionNumberResponse {
                    base_type_name: message.clone(),
                    extension_number,
                });
                response
                    .map(MessageResponse::AllExtensionNumbersResponse)
                    .ok_or_else(|| not_found(&format!("no message {}", shown(message))))
            }
            MessageRequest::ListServices(_) => {
                let services = self.index.services().iter();
                let service = services.map(|name| ServiceResponse { name: name.clone() });
                Ok(MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: service.collect(),
                }))
            }
        }
    }

    fn files(
        &mut self,
        file: Option<usize>,
        missing: impl FnOnce() -> String,
    ) -> Result<MessageResponse, ErrorResponse> {
        let file = file.ok_or_else(|| not_found(&missing()))?;
        Ok(MessageResponse::FileDescriptorResponse(
            FileDescriptorResponse {
                file_descriptor_proto: self.index.with_imports(file, &mut self.sent),
            },
        ))
    }
}

fn not_found(what: &str) -> ErrorResponse {
    error(Code::NOT_FOUND, format!("this server has {what}"))
}

fn error(code: Code, error_message: String) -> ErrorResponse {
    ErrorResponse {
        error_code: code.as_i32(),
        error_message,
    }
}

/// A name from the peer, in quotes.
fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}
