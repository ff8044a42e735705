//! Error details: a server reports every invalid field of a request, in a form that clients in any
//! language can read.
//!
//! Run it with `cargo run --example error_details`.

use booking::{BookReply, BookRequest, Booking, BookingClient, BookingServer};
use trunkline::details::{BadRequest, ErrorInfo};
use trunkline::{Request, Result, Server, Status};

mod booking {
    trunkline::include_proto!("../proto/booking.proto");
}

struct GuestHouse;

impl Booking for GuestHouse {
    async fn book(&self, request: Request<BookRequest>) -> Result<BookReply> {
        let mut wrong = BadRequest::default();
        if request.guest.is_empty() {
            wrong = wrong.with_violation("guest", "a guest has a name");
        }
        if !(1..=14).contains(&request.nights) {
            wrong = wrong.with_violation("nights", "choose 1 to 14 nights");
        }
        if !wrong.field_violations.is_empty() {
            return Err(Status::invalid_argument("the booking cannot be read").with_detail(wrong));
        }
        if request.nights > 7 {
            let info = ErrorInfo::new("FULLY_BOOKED", "booking.example.com");
            let info = info.with_entry("longest_stay", "7");
            return Err(
                Status::failed_precondition("there is no room for so long").with_detail(info)
            );
        }
        Ok(BookReply { room: 12 })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new()
        .add_service(BookingServer::new(GuestHouse))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let client = BookingClient::connect(&address).await?;
    for (guest, nights) in [("", 30), ("Ida", 10), ("Ida", 2)] {
        let guest = guest.to_string();
        match client.book(BookRequest { guest, nights }).await {
            Ok(response) => println!("Room {}", response.room),
            Err(status) => explain(&status),
        }
    }
    Ok(())
}

fn explain(status: &Status) {
    println!("{}: {}", status.code(), status.message());
    if let Some(wrong) = status.detail::<BadRequest>() {
        for violation in wrong.field_violations {
            println!("  {}: {}", violation.field, violation.description);
        }
    }
    if let Some(info) = status.detail::<ErrorInfo>() {
        println!("  {} {:?}", info.reason, info.metadata);
    }
}
