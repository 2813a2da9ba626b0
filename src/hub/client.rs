//! `Client`: lists a model's files and opens their bytes, one request at a time.

use std::collections::HashSet;
use std::io::Read;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Repo, RepoType};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

use super::Access;
use super::digest::Digest;
use super::error::HubError;
use super::retry::{Failure, Patience};
use crate::name::{ModelId, RelPath};

/// The longest listing, in bytes; a file takes about 300.
const MAX_LISTING_BYTES: u64 = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A body that takes longer is broken off and gone on with, so that a dead connection is noticed.
const BODY_TIMEOUT: Duration = Duration::from_secs(600);

/// A connection to the hub.
pub struct Client {
    api: Api,
    agent: Agent,
    access: Access,
    pub(super) patience: Patience,
}

/// A revision's commit and files.
#[derive(Debug)]
pub(super) struct Remote {
    /// 40 hexadecimal digits.
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

/// A file as the hub lists it.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    pub digest: Option<Digest>,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: Option<String>,
}

impl Client {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up, or the token cannot stand in a header.
    pub fn new(access: Access, patience: Patience) -> Result<Self, HubError> {
        let is_sendable = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        if !access.token.as_ref().is_none_or(is_sendable) {
            return Err(HubError::TokenForm);
        }
        let api = ApiBuilder::new()
            .with_endpoint(access.endpoint.clone())
            .with_token(access.token.clone())
            .with_progress(false)
            .with_user_agent("zipllm", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| HubError::Answer(error.to_string()))?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(BODY_TIMEOUT))
            .build()
            .into();
        Ok(Self {
            api,
            agent,
            access,
            patience,
        })
    }

    fn repo(&self, model: &ModelId, revision: &str) -> ApiRepo {
        self.api.repo(Repo::with_revision(
            model.as_str().to_owned(),
            RepoType::Model,
            encode(revision),
        ))
    }

    /// Lists a revision's files.
    pub(super) fn list(&self, model: &ModelId, revision: &str) -> Result<Remote, HubError> {
        let listing: Listing = self.patience.retry(|| {
            let request = self
                .repo(model, revision)
                .info_request()
                .query("blobs", "true");
            let request = request
                .config()
                .http_status_as_error(false)
                .timeout_connect(Some(CONNECT_TIMEOUT));
            let answer = request.timeout_global(Some(BODY_TIMEOUT)).build().call();
            let mut answer = self.accept(answer, revision)?;
            let body = answer.body_mut().with_config().limit(MAX_LISTING_BYTES);
            body.read_json().map_err(unreadable)
        })?;
        if listing.sha.len() != 40 || !listing.sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(HubError::Answer("the commit's name is malformed".into()));
        }
        Ok(Remote {
            commit: listing.sha,
            files: remote_files(listing.siblings)?,
        })
    }

    /// Asks for a file's bytes from `offset` on; returns where the bytes that come begin: there, or at 0.
    pub(super) fn open(
        &self,
        model: &ModelId,
        commit: &str,
        path: &RelPath,
        offset: u64,
    ) -> Result<(u64, impl Read), Failure> {
        let mut request = self
            .agent
            .get(self.repo(model, commit).url(&encode_path(path)));
        // A compressed body would have other positions and another length.
        request = request.header("Accept-Encoding", "identity");
        if let Some(token) = &self.access.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let answer = self.accept(request.call(), commit)?;
        let start = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range_start(answer.headers()) == Some(offset) => offset,
            status => {
                let text = format!("HTTP {status} to a request from byte {offset}");
                return Err(Failure::lasting(HubError::Answer(text)));
            }
        };
        Ok((start, answer.into_body().into_reader()))
    }

    /// Turns a failed request, or an answer that is an error, into a [`Failure`].
    fn accept(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
        revision: &str,
    ) -> Result<Response<Body>, Failure> {
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(answer),
            Ok(answer) => Err(refusal(answer.status(), answer.headers(), revision)),
            Err(error @ (ureq::Error::Http(_) | ureq::Error::BadUri(_))) => {
                Err(Failure::lasting(HubError::Address {
                    endpoint: self.access.endpoint.clone(),
                    reason: error.to_string(),
                }))
            }
            Err(error) => Err(Failure::passing(self.unreachable(&error.to_string()))),
        }
    }

    /// The error for a connection that failed.
    pub(super) fn unreachable(&self, reason: &str) -> HubError {
        HubError::Unreachable {
            endpoint: self.access.endpoint.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// The failure to read a listing; another attempt may get past a broken connection, but not past a wrong answer.
fn unreadable(error: ureq::Error) -> Failure {
    let passing = !matches!(&error, ureq::Error::Json(json) if !json.is_io());
    Failure {
        passing,
        ..Failure::lasting(HubError::Answer(error.to_string()))
    }
}

fn remote_files(siblings: Vec<Sibling>) -> Result<Vec<RemoteFile>, HubError> {
    let mut seen = HashSet::new();
    let files = siblings.into_iter().map(|sibling| {
        let file = remote_file(sibling)?;
        if seen.insert(file.path.clone()) {
            Ok(file)
        } else {
            Err(HubError::Twice(file.path))
        }
    });
    files.collect()
}

fn remote_file(sibling: Sibling) -> Result<RemoteFile, HubError> {
    let path: RelPath = sibling.rfilename.parse().map_err(HubError::FileName)?;
    let Some(size) = sibling.size else {
        return Err(HubError::Answer(format!("the size of {path} is missing")));
    };
    let sha256 = sibling.lfs.and_then(|large| large.sha256);
    let digest = Digest::choose(sha256.as_deref(), sibling.blob_id.as_deref());
    Ok(RemoteFile { path, size, digest })
}

/// Reads a refusal as the hub words it: a status, and often a code and a message in headers.
fn refusal(status: StatusCode, headers: &HeaderMap, revision: &str) -> Failure {
    let header = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let error = match (status.as_u16(), header("x-error-code")) {
        (_, "GatedRepo") => HubError::Gated,
        (_, "RevisionNotFound") => HubError::NoRevision(revision.to_owned()),
        (_, "RepoNotFound") => HubError::NoModel,
        (401, _) if header("x-error-message").contains("Invalid credentials") => HubError::Token,
        // To strangers the hub does not tell whether a name is taken.
        (401, _) => HubError::NoModel,
        (403, _) => HubError::Token,
        (429, _) => HubError::TooManyRequests,
        (code @ 500.., _) => HubError::Server(code),
        (code, _) => HubError::Answer(format!("HTTP {code} {}", header("x-error-message"))),
    };
    let passing = matches!(error, HubError::TooManyRequests | HubError::Server(_)) || status == 408;
    let wait = header("retry-after").parse().ok().map(Duration::from_secs);
    Failure {
        passing,
        wait,
        ..Failure::lasting(error)
    }
}

/// Reads the first position of `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("content-range")?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Writes a path so that it stands in a URL for itself.
fn encode_path(path: &RelPath) -> String {
    path.parts().map(encode).collect::<Vec<_>>().join("/")
}

/// Writes all but letters, digits, `-`, `_`, `.` and `~` as `%XX`.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().fold(String::new(), |encoded, byte| {
        encoded
            + &if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_themselves_in_a_url() {
        let path: RelPath = "a b/ü?#%.txt".parse().unwrap();
        assert_eq!(encode_path(&path), "a%20b/%C3%BC%3F%23%25.txt");
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
    }

    #[test]
    fn refusals_are_told_apart() {
        for (status, code, message, expected, passing) in [
            (403, "GatedRepo", "", "access to it is restricted", false),
            (404, "RevisionNotFound", "", "no revision \"v1\"", false),
            (404, "RepoNotFound", "", "no such model", false),
            (
                401,
                "",
                "Invalid credentials in Authorization header",
                "refuses the token",
                false,
            ),
            (
                401,
                "",
                "Invalid username or password.",
                "no such model",
                false,
            ),
            (403, "", "", "refuses the token", false),
            (429, "", "", "too many requests", true),
            (503, "", "", "HTTP 503", true),
            (
                404,
                "EntryNotFound",
                "Entry not found",
                "HTTP 404 Entry not found",
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-error-code", code.parse().unwrap());
            headers.insert("x-error-message", message.parse().unwrap());
            headers.insert("retry-after", "7".parse().unwrap());
            let failure = refusal(StatusCode::from_u16(status).unwrap(), &headers, "v1");
            assert!(
                failure.error.to_string().contains(expected),
                "{status}: {}",
                failure.error
            );
            assert_eq!(
                (failure.passing, failure.wait),
                (passing, Some(Duration::from_secs(7))),
                "{status}"
            );
        }
    }

    #[test]
    fn ranges() {
        for (text, start) in [
            ("bytes 5-9/10", Some(5)),
            ("bytes */10", None),
            ("5-9", None),
            ("bytes x-9/10", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-range", text.parse().unwrap());
            assert_eq!(range_start(&headers), start, "{text}");
        }
    }
}
