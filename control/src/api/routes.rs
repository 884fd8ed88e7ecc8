//! The paths of the API. `status`, `events` and `metrics` never wait for the node's core; commands
//! do, for a bounded time.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::metrics;
use super::model::{Done, ErrorBody, SaAdd, SaView, Spi};
use super::server::{Command, CommandError, Reply, Shared};

/// An SA as typed has some 30 words.
const MAX_BODY: usize = 64 * 1024;
/// The longest a caller may wait for an event in one request.
const MAX_EVENT_WAIT: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct App {
    shared: Shared,
    command_timeout: Duration,
}

pub(crate) fn router(shared: Shared, command_timeout: Duration) -> axum::Router {
    axum::Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/sa", get(sa_list).post(sa_add).delete(sa_delete))
        .route("/v1/policy/reload", post(policy_reload))
        .route("/v1/session", delete(session_delete))
        .route("/v1/debug/keylog", post(keylog))
        .route("/v1/drain", post(drain).delete(drain_undo))
        .route("/v1/association", post(associate))
        .route("/metrics", get(prometheus))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(App {
            shared,
            command_timeout,
        })
}

/// An error on its way out: always JSON.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.0, &ErrorBody { error: self.1 })
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let status = match &error {
            CommandError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CommandError::NotFound(_) => StatusCode::NOT_FOUND,
            CommandError::Conflict(_) => StatusCode::CONFLICT,
            CommandError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

type Answer = Result<Response, Refusal>;

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer of the API has no JSON form");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn status(State(app): State<App>) -> Response {
    json(StatusCode::OK, &(app.shared.status)())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Only events after this number.
    #[serde(default)]
    since: u64,
    /// Waits so many milliseconds for an event if there is none yet.
    #[serde(default)]
    wait_ms: u64,
}

async fn events(
    State(app): State<App>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Answer {
    let Query(EventsQuery { since, wait_ms }) = query?;
    let patience = Duration::from_millis(wait_ms).min(MAX_EVENT_WAIT);
    let events = if patience.is_zero() {
        app.shared.events.since(since)
    } else {
        app.shared.events.wait(since, patience).await
    };
    Ok(json(StatusCode::OK, &events))
}

async fn prometheus(State(app): State<App>) -> Response {
    let text = metrics::render(&(app.shared.status)());
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

/// Hands a command to the core and waits for its answer.
async fn command<T>(app: &App, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    let stopping = || {
        Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the node is stopping".to_owned(),
        )
    };
    let ask = async {
        app.shared
            .commands
            .send(make(reply))
            .await
            .map_err(|_| stopping())?;
        let result = answer.await.map_err(|_| stopping())?;
        result.map_err(Refusal::from)
    };
    match tokio::time::timeout(app.command_timeout, ask).await {
        Ok(result) => result,
        Err(_) => Err(Refusal(
            StatusCode::GATEWAY_TIMEOUT,
            format!(
                "the node's core did not answer within {} ms; the command may still take effect \
                 (status and events go on working)",
                app.command_timeout.as_millis()
            ),
        )),
    }
}

async fn done(app: &App, make: impl FnOnce(Reply<Done>) -> Command) -> Answer {
    let done = command(app, make).await?;
    Ok(json(StatusCode::OK, &done))
}

async fn sa_list(State(app): State<App>) -> Answer {
    let list: Vec<SaView> = command(&app, |reply| Command::SaList { reply }).await?;
    Ok(json(StatusCode::OK, &list))
}

async fn sa_add(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Answer {
    let body = body?;
    // The parser's own message is not passed on: it may quote the body, which holds a key.
    let SaAdd { words } = serde_json::from_slice(&body).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        let text = format!("the body is not {{\"words\": [\"…\", …]}} (at {place})");
        Refusal(StatusCode::BAD_REQUEST, text)
    })?;
    if words.is_empty() {
        return Err(CommandError::from("no words: an SA needs at least an SPI and a key").into());
    }
    done(&app, |reply| Command::SaAdd { words, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaDeleteQuery {
    spi: Option<Spi>,
    #[serde(default)]
    all: bool,
}

async fn sa_delete(
    State(app): State<App>,
    query: Result<Query<SaDeleteQuery>, QueryRejection>,
) -> Answer {
    match query?.0 {
        SaDeleteQuery {
            spi: Some(spi),
            all: false,
        } => done(&app, |reply| Command::SaDelete { spi, reply }).await,
        SaDeleteQuery {
            spi: None,
            all: true,
        } => done(&app, |reply| Command::SaFlush { reply }).await,
        _ => Err(
            CommandError::from("name one SA by `?spi=0x…`, or all of them by `?all=true`").into(),
        ),
    }
}

async fn policy_reload(State(app): State<App>) -> Answer {
    done(&app, |reply| Command::PolicyReload { reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    peer: String,
}

async fn session_delete(
    State(app): State<App>,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Answer {
    let Query(SessionQuery { peer }) = query?;
    done(&app, |reply| Command::SessionDelete { peer, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeylogQuery {
    on: bool,
}

async fn keylog(
    State(app): State<App>,
    query: Result<Query<KeylogQuery>, QueryRejection>,
) -> Answer {
    let Query(KeylogQuery { on }) = query?;
    done(&app, |reply| Command::Keylog { on, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssociationQuery {
    address: IpAddr,
}

async fn associate(
    State(app): State<App>,
    query: Result<Query<AssociationQuery>, QueryRejection>,
) -> Answer {
    let Query(AssociationQuery { address }) = query?;
    done(&app, |reply| Command::Associate { address, reply }).await
}

async fn drain(State(app): State<App>) -> Answer {
    done(&app, |reply| Command::Drain { undo: false, reply }).await
}

async fn drain_undo(State(app): State<App>) -> Answer {
    done(&app, |reply| Command::Drain { undo: true, reply }).await
}

async fn unknown_path(uri: axum::http::Uri) -> Refusal {
    Refusal(
        StatusCode::NOT_FOUND,
        format!(
            "no such path: {}; there are /v1/status, /v1/events, /v1/sa, /v1/session, \
             /v1/drain, /v1/association, /v1/policy/reload, /v1/debug/keylog and /metrics",
            uri.path()
        ),
    )
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Refusal {
    Refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take {method}", uri.path()),
    )
}
