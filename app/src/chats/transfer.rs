//! Export and import.

use super::Chat;

/// As Markdown: the path that is shown, attributed, with reasoning folded and a line of statistics under every answer.
pub fn to_markdown(chat: &Chat) -> String {
    let _ = chat;
    String::new()
}

/// As JSON: the whole tree, with settings, ratings and the statistics of every answer. What [`super::Library::import`] takes.
pub fn to_json(chat: &Chat) -> String {
    let _ = chat;
    String::new()
}
