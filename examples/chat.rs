//! A chat room: each client has a bidirectional call to the same server. The head of the response
//! confirms that the client is in the room.
//!
//! Run it with `cargo run --example chat`.

use chat::{Chat, ChatClient, ChatServer, Line, SpokenLine};
use tokio::sync::broadcast;
use trunkline::{Request, Result, Sender, Server, Status, Streaming};

mod chat {
    trunkline::include_proto!("../proto/chat.proto");
}

struct Room {
    lines: broadcast::Sender<SpokenLine>,
}

impl Chat for Room {
    async fn join(
        &self,
        mut lines: Request<Streaming<Line>>,
        responses: &mut Sender<SpokenLine>,
    ) -> Result<()> {
        let Some(name) = lines.metadata().get("name").map(str::to_owned) else {
            return Err(Status::invalid_argument("the metadata \"name\" is missing"));
        };
        let mut spoken = self.lines.subscribe();
        lines.response().send_head();
        loop {
            tokio::select! {
                line = lines.message() => {
                    let Some(Line { text }) = line? else { return Ok(()) };
                    // This fails only if the room is empty, and this member is in it.
                    let _ = self.lines.send(SpokenLine { name: name.clone(), text });
                }
                line = spoken.recv() => {
                    let line = line.map_err(|_| Status::resource_exhausted("too slow to follow"))?;
                    responses.send(line).await?;
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let room = Room {
        lines: broadcast::Sender::new(64),
    };
    let server = Server::new()
        .add_service(ChatServer::new(room))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let client = ChatClient::connect(&address).await?;
    let mut members = Vec::new();
    for name in ["Ann", "Bob", "Cem"] {
        let (say, mut hear) = client.join().metadata("name", name).await?;
        hear.head().await?;
        members.push((name, say, hear));
    }
    for (speaker, text) in [(0, "Is anybody here?"), (2, "I am."), (1, "So am I.")] {
        let say = &mut members[speaker].1;
        say.send(Line {
            text: text.to_string(),
        })
        .await?;
        for (name, _, hear) in &mut members {
            if let Some(line) = hear.message().await? {
                println!("{name} hears {}: {}", line.name, line.text);
            }
        }
    }
    for (name, say, mut hear) in members {
        say.finish();
        while hear.message().await?.is_some() {}
        println!("{name} has left");
    }
    Ok(())
}
