//! The four methods as a user of Trunkline writes them; `counted` counts these same handlers.

use std::time::{Duration, Instant};

use bench::{Bench, Reply};
use trunkline::bytes::Bytes;
use trunkline::{Request, Result, Sender, Streaming};

pub(crate) mod bench {
    trunkline::include_proto!("proto/bench.proto");
}

/// Serves what `bench.proto` says.
pub(crate) struct Service;

impl Bench for Service {
    async fn unary(&self, request: Request<bench::Request>) -> Result<Reply> {
        let request = request.into_inner();
        if request.sleep_millis > 0 {
            tokio::time::sleep(Duration::from_millis(request.sleep_millis.into())).await;
        }
        if request.spin_millis > 0 {
            let end = Instant::now() + Duration::from_millis(request.spin_millis.into());
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        if request.block_millis > 0 {
            std::thread::sleep(Duration::from_millis(request.block_millis.into()));
        }
        Ok(reply(request.payload))
    }

    async fn server_stream(
        &self,
        request: Request<bench::Request>,
        replies: &mut Sender<Reply>,
    ) -> Result<()> {
        let request = request.into_inner();
        for _ in 0..request.replies {
            replies.send(reply(request.payload.clone())).await?;
        }
        Ok(())
    }

    async fn client_stream(
        &self,
        mut requests: Request<Streaming<bench::Request>>,
    ) -> Result<Reply> {
        let mut reply = Reply::default();
        while let Some(request) = requests.message().await? {
            reply.payload = request.payload;
            reply.requests += 1;
        }
        Ok(reply)
    }

    async fn bidi(
        &self,
        mut requests: Request<Streaming<bench::Request>>,
        replies: &mut Sender<Reply>,
    ) -> Result<()> {
        while let Some(request) = requests.message().await? {
            replies.send(reply(request.payload)).await?;
        }
        Ok(())
    }
}

fn reply(payload: Bytes) -> Reply {
    Reply {
        payload,
        ..Reply::default()
    }
}
