//! The server: it answers as the request defines, and tells what it has seen.

use std::time::Duration;

use trunkline::tls::ServerTls;
use trunkline::{
    Metadata, Request, ResponseHandle, Result, Sender, Server, Status, Streaming, shutdown_signal,
};

use crate::suite::unary_response_definition::Response as Defined;
use crate::suite::{
    BidiStreamRequest, BidiStreamResponse, ClientStreamRequest, ClientStreamResponse,
    ConformancePayload, ConformanceService, ConformanceServiceServer, Header,
    IdempotentUnaryRequest, IdempotentUnaryResponse, ServerCompatRequest, ServerCompatResponse,
    ServerStreamRequest, ServerStreamResponse, UnaryRequest, UnaryResponse,
    UnaryResponseDefinition, UnimplementedRequest, UnimplementedResponse,
};
use crate::{RequestInfo, any, bytes_of, each, headers_of, read, status_of, write};

pub(crate) async fn run() -> Result<()> {
    let wanted: ServerCompatRequest =
        read().ok_or_else(|| Status::internal("the suite asks for no server"))?;
    let mut server = Server::new().add_service(ConformanceServiceServer::new(Defining));
    if wanted.message_receive_limit > 0 {
        server = server.max_recv_message_size(wanted.message_receive_limit as usize);
    }
    let credentials = wanted.server_creds.unwrap_or_default();
    if wanted.use_tls {
        let mut tls = ServerTls::from_pem(&credentials.cert, &credentials.key)?;
        if !wanted.client_tls_cert.is_empty() {
            tls = tls.client_ca_pem(&wanted.client_tls_cert);
        }
        server = server.tls(tls);
    }
    let bound = server.bind("127.0.0.1:0").await?;
    let address = bound.local_addr().to_string();
    let port = address.rsplit(':').next().and_then(|it| it.parse().ok());
    write(&ServerCompatResponse {
        host: "127.0.0.1".to_owned(),
        port: port.ok_or_else(|| Status::internal("the address has no port"))?,
        pem_cert: credentials.cert,
    })?;
    bound.serve_until(shutdown_signal()).await
}

struct Defining;

fn info(
    metadata: &Metadata,
    left: Option<Duration>,
    requests: Vec<trunkline::prost_types::Any>,
) -> RequestInfo {
    RequestInfo {
        request_headers: headers_of(metadata),
        timeout_ms: left.map(|left| left.as_millis() as i64),
        requests,
        connect_get_info: None,
    }
}

fn set(response: &ResponseHandle, head: &[Header], trailers: &[Header]) -> Result<()> {
    for (key, value) in each(head) {
        match key.ends_with("-bin") {
            true => response.metadata_bin(&key, bytes_of(value))?,
            false => response.metadata(&key, value)?,
        }
    }
    for (key, value) in each(trailers) {
        match key.ends_with("-bin") {
            true => response.trailer_bin(&key, bytes_of(value))?,
            false => response.trailer(&key, value)?,
        }
    }
    Ok(())
}

async fn pause(milliseconds: u32) {
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
    }
}

/// The one message of a response, as it was defined.
async fn one(
    response: &ResponseHandle,
    definition: Option<UnaryResponseDefinition>,
    info: RequestInfo,
) -> Result<ConformancePayload> {
    let mut payload = ConformancePayload::default();
    if let Some(definition) = definition {
        set(
            response,
            &definition.response_headers,
            &definition.response_trailers,
        )?;
        response.send_head();
        pause(definition.response_delay_ms).await;
        match definition.response {
            Some(Defined::Error(mut error)) => {
                error.details.push(any(&info));
                return Err(status_of(error));
            }
            Some(Defined::ResponseData(data)) => payload.data = data,
            None => {}
        }
    }
    payload.request_info = Some(info);
    Ok(payload)
}

impl ConformanceService for Defining {
    async fn unary(&self, request: Request<UnaryRequest>) -> Result<UnaryResponse> {
        let info = info(
            request.metadata(),
            request.time_remaining(),
            vec![any(&*request)],
        );
        let response = request.response().clone();
        let payload = one(&response, request.into_inner().response_definition, info).await?;
        Ok(UnaryResponse {
            payload: Some(payload),
        })
    }

    /// Only called by GET, which is not gRPC.
    async fn idempotent_unary(
        &self,
        _: Request<IdempotentUnaryRequest>,
    ) -> Result<IdempotentUnaryResponse> {
        Err(Status::unimplemented("this method is called by GET alone"))
    }

    async fn unimplemented(
        &self,
        _: Request<UnimplementedRequest>,
    ) -> Result<UnimplementedResponse> {
        Err(Status::unimplemented("this method is not implemented"))
    }

    async fn client_stream(
        &self,
        mut request: Request<Streaming<ClientStreamRequest>>,
    ) -> Result<ClientStreamResponse> {
        let (mut definition, mut requests) = (None, Vec::new());
        while let Some(message) = request.message().await? {
            requests.push(any(&message));
            if requests.len() == 1 {
                definition = message.response_definition;
            }
        }
        let info = info(request.metadata(), request.time_remaining(), requests);
        let payload = one(request.response(), definition, info).await?;
        Ok(ClientStreamResponse {
            payload: Some(payload),
        })
    }

    async fn server_stream(
        &self,
        request: Request<ServerStreamRequest>,
        responses: &mut Sender<ServerStreamResponse>,
    ) -> Result<()> {
        let info = info(
            request.metadata(),
            request.time_remaining(),
            vec![any(&*request)],
        );
        let response = request.response().clone();
        let Some(definition) = request.into_inner().response_definition else {
            return Ok(());
        };
        set(
            &response,
            &definition.response_headers,
            &definition.response_trailers,
        )?;
        response.send_head();
        let mut info = Some(info);
        for data in definition.response_data {
            pause(definition.response_delay_ms).await;
            let payload = ConformancePayload {
                data,
                request_info: info.take(),
            };
            let payload = Some(payload);
            responses.send(ServerStreamResponse { payload }).await?;
        }
        ended(definition.error, info)
    }

    async fn bidi_stream(
        &self,
        mut request: Request<Streaming<BidiStreamRequest>>,
        responses: &mut Sender<BidiStreamResponse>,
    ) -> Result<()> {
        let (mut definition, mut is_full_duplex) = (None, false);
        let (mut requests, mut sent) = (Vec::new(), 0);
        while let Some(message) = request.message().await? {
            requests.push(any(&message));
            if definition.is_none() {
                let defined = message.response_definition.unwrap_or_default();
                is_full_duplex = message.full_duplex;
                let (head, trailers) = (&defined.response_headers, &defined.response_trailers);
                set(request.response(), head, trailers)?;
                if is_full_duplex {
                    request.response().send_head();
                }
                definition = Some(defined);
            }
            let Some(definition) = definition.as_ref().filter(|_| is_full_duplex) else {
                continue;
            };
            let Some(data) = definition.response_data.get(sent) else {
                break;
            };
            let requests = std::mem::take(&mut requests);
            let info = match sent {
                0 => info(request.metadata(), request.time_remaining(), requests),
                _ => RequestInfo {
                    requests,
                    ..RequestInfo::default()
                },
            };
            pause(definition.response_delay_ms).await;
            let payload = ConformancePayload {
                data: data.clone(),
                request_info: Some(info),
            };
            let payload = Some(payload);
            responses.send(BidiStreamResponse { payload }).await?;
            sent += 1;
        }
        let Some(definition) = definition else {
            return Ok(());
        };
        let mut info =
            (sent == 0).then(|| info(request.metadata(), request.time_remaining(), requests));
        for data in definition.response_data.into_iter().skip(sent) {
            pause(definition.response_delay_ms).await;
            let payload = ConformancePayload {
                data,
                request_info: info.take(),
            };
            let payload = Some(payload);
            responses.send(BidiStreamResponse { payload }).await?;
        }
        ended(definition.error, info)
    }
}

/// How a stream ends. What was seen of the request goes into the details, if no message has it.
fn ended(error: Option<crate::suite::Error>, info: Option<RequestInfo>) -> Result<()> {
    let Some(mut error) = error else {
        return Ok(());
    };
    error.details.extend(info.map(|info| any(&info)));
    Err(status_of(error))
}
