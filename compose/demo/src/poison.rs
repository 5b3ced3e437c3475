//! Answers that nobody can read because of one movie in them.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};

/// Stands in an answer where the title of a poisoned movie would.
pub(crate) const MARK: &str = "\u{e000}poisoned\u{e000}";

/// What becomes of an answer that holds a poisoned title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// The title is half of a surrogate pair, as JavaScript writes a text that was cut in the middle of an emoji.
    HalfSurrogate,
    /// The title is `NaN`, as serializers write a number that is none.
    NotANumber,
    /// The title is a list in a list in a list, so many levels deep.
    Nested(usize),
    /// The service answers a page of HTML with status 500.
    ErrorPage,
    /// The connection is cut in the middle of the answer.
    Cut,
}

impl Poison {
    /// The answer with this JSON, poisoned if it holds the mark.
    pub(crate) fn spoil(self, json: String) -> Response {
        let mark = format!("\"{MARK}\"");
        let Some(at) = json.find(&mark) else { return of_json(json.into()) };
        match self {
            Self::HalfSurrogate => of_json(json.replace(&mark, r#""\ud83d""#).into()),
            Self::NotANumber => of_json(json.replace(&mark, "NaN").into()),
            Self::Nested(levels) => of_json(json.replace(&mark, &("[".repeat(levels) + &"]".repeat(levels))).into()),
            Self::ErrorPage => {
                let page = "<html>\n<h1>Internal Server Error</h1>\n</html>\n";
                (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/html")], page).into_response()
            }
            Self::Cut => {
                let beginning = json.get(..at).unwrap_or_default().to_owned();
                // What was written is sent while the rest is waited for.
                let end = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("cut"))
                });
                of_json(Body::from_stream(stream::iter([Ok(beginning)]).chain(end)))
            }
        }
    }
}

fn of_json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
