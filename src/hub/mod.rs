//! Fetches models from the Hugging Face Hub: listing and addresses by the `hf-hub` crate, the bytes by ranged requests
//! of our own.
//!
//! A model's files are fetched into `.downloads/org--name@COMMIT` below the models' directory, each first under another
//! name; a file whose size and digest are right gets its own name there, and when all have theirs the whole
//! directory becomes `org--name`. So a model is there whole or not at all, and a broken download goes on where it was.
//! Files that patterns left out are noted beside it ([`LeftOut`](crate::source::LeftOut)) and can be fetched later.
//! Every name from the hub has to be a [`RelPath`](crate::name::RelPath). See `docs/hub.md`.

mod client;
mod digest;
mod download;
mod error;
mod pattern;
mod retry;
mod transfer;

pub use client::Client;
pub use download::{Fetched, Options, complete, fetch, place};
pub use error::HubError;
pub use retry::Patience;

/// Where the hub is, and who asks.
#[derive(Clone, Debug)]
pub struct Access {
    /// The hub's address, as `https://huggingface.co`, without a slash at its end.
    pub endpoint: String,
    /// The user's token, if there is one; it is sent to the endpoint only.
    pub token: Option<String>,
}
