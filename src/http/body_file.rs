//! A body of `POST /v1/rerank` that stands in a file, for the commands that need no server.

use crate::rerank::Ask;

use super::asked::Context;
use super::dialects::Dialect;
use super::dialects::native::Native;
use super::extract::Received;

/// What such a body asks, and the names of the fields in it that mean nothing here, if there are any.
///
/// # Errors
/// In words, as the server's.
pub fn ask_of_body(body: Vec<u8>) -> Result<(Ask, Option<String>), String> {
    let received = Received::of(body);
    let context = Context {
        id: String::new(),
        model: None,
        time: 0,
    };
    let request = received.parse();
    let asked = request.and_then(|request| Native::CohereV1.ask(request, &context));
    let (ask, _) = asked.map_err(|error| error.to_string())?;
    Ok((ask, received.ignored().names()))
}
