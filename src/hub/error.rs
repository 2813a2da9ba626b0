//! `HubError`: why a model could not be fetched, in words that say what to do.

use std::path::PathBuf;

use crate::error::Error;
use crate::name::RelPath;

/// Why a model could not be fetched. The messages do not name the model; the caller does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The model is gated, and the token's account has no access.
    #[error(
        "access to it is restricted: accept its terms on the hub, then set HF_TOKEN to a token of that account"
    )]
    Gated,
    /// The hub does not know the token.
    #[error("the hub refuses the token: check HF_TOKEN")]
    Token,
    /// The token cannot be sent, so no hub was asked.
    #[error(
        "the token holds what no token does (a line feed, a space, another alphabet): check HF_TOKEN"
    )]
    TokenForm,
    /// There is no such model, or the token's account may not see it.
    #[error(
        "the hub has no such model, or it is private: check the name, and HF_TOKEN if it is private"
    )]
    NoModel,
    /// The model has no such branch, tag or commit.
    #[error("it has no revision {0:?}")]
    NoRevision(String),
    /// The hub, or the place of its large files, cannot be reached.
    #[error("{endpoint} cannot be reached ({reason}): check the network and HF_ENDPOINT")]
    Unreachable {
        /// The hub's address.
        endpoint: String,
        /// What the connection said.
        reason: String,
    },
    /// No request can be made of the address.
    #[error("{endpoint} is no address of a hub ({reason}): check HF_ENDPOINT")]
    Address {
        /// What was given for the hub's address.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file's bytes ended too early, again and again.
    #[error(
        "{path}: the connection broke again and again ({reason}): run it again later; what came is kept"
    )]
    Broken {
        /// The file's path in the model.
        path: String,
        /// What the connection said.
        reason: String,
    },
    /// Another process fetches the same commit of the model into the same directory.
    #[error("another process is fetching it into the same directory: wait until that is done")]
    Busy,
    /// Files of one commit are there, and those of another are asked for.
    #[error("{} has files of commit {there}, and {revision} is another: ask for --revision {there}, or delete it to fetch {revision}", directory.display())]
    OtherCommit {
        /// The commit of the files that are there.
        there: String,
        /// What was asked for.
        revision: String,
        /// The model's directory.
        directory: PathBuf,
    },
    /// The hub limits the number of requests.
    #[error("the hub answers that there were too many requests: try again later, or set HF_TOKEN")]
    TooManyRequests,
    /// The hub failed.
    #[error("the hub has a fault of its own (HTTP {0}): try again later")]
    Server(u16),
    /// The hub answered something that is not understood.
    #[error("the hub's answer is not understood: {0}")]
    Answer(String),
    /// The hub lists a file that cannot be written below the model's directory.
    #[error("the hub lists a file that is refused: {0}")]
    FileName(Error),
    /// The hub lists a file twice, so that only one of the two could be kept.
    #[error("the hub lists {0} twice")]
    Twice(RelPath),
    /// No file is left by the patterns.
    #[error("it has no file that the patterns let through")]
    NoFiles,
    /// A file's bytes are not those that the hub promised.
    #[error("{path}: the bytes received do not have the {what} that the hub gives: try again")]
    Damaged {
        /// The file's path in the model.
        path: String,
        /// "size" or the digest's name.
        what: &'static str,
    },
    /// The local disk failed.
    #[error(transparent)]
    Local(#[from] Error),
}
