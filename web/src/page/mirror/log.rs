//! What was said, as elements.

use std::collections::{HashMap, VecDeque};

use pleiad_app::{
    chats::{Chat, ChatId, Message, MessageId, Rating, Stop},
    thinking::{Piece, Splitter},
    ui::App,
};
use pleiad_models::Role;
use web_sys::Element;

use crate::js;

/// Messages of a conversation that are listed when it is opened.
const LISTED: usize = 50;
/// Elements that are kept.
const MOST: usize = 200;

/// A message that has an element.
struct Article {
    element: Element,
    rating: Option<Rating>,
}

/// What was listed last: of which conversation, in which state, while something was being written or not.
#[derive(PartialEq)]
struct Seen {
    chat: ChatId,
    revision: u64,
    busy: bool,
}

/// The element, and what is in it.
pub struct Log {
    element: Option<Element>,
    seen: Option<Seen>,
    articles: HashMap<MessageId, Article>,
    /// Those that are in the page, oldest first.
    order: VecDeque<MessageId>,
    /// A conversation was listed: what is not new is not read out.
    quiet: bool,
}

impl Log {
    /// Finds the element.
    pub fn new() -> Self {
        Self { element: js::element("pleiad-log"), seen: None, articles: HashMap::new(), order: VecDeque::new(), quiet: false }
    }

    /// Adds what was said since the last time, and shows what has changed. Messages that are no longer shown stay: a log is
    /// only added to, until another conversation is opened.
    pub fn update(&mut self, app: &mut App) {
        let finished = app.take_finished();
        let Some(root) = self.element.clone() else { return };
        let Some(chat) = app.open_chat().and_then(|id| app.library().peek(id)) else { return };
        let now = Seen { chat: chat.id.clone(), revision: chat.tree.revision(), busy: app.busy() };
        if finished.is_empty() && self.seen.as_ref() == Some(&now) {
            return;
        }
        if self.seen.as_ref().is_none_or(|seen| seen.chat != chat.id) {
            root.set_text_content(None);
            self.articles.clear();
            self.order.clear();
            self.be_quiet(&root, true);
        } else {
            self.be_quiet(&root, false);
        }
        let path = chat.tree.shown_path();
        for &id in path.iter().skip(path.len().saturating_sub(LISTED)) {
            let Some(message) = chat.tree.get(id) else { continue };
            match self.articles.get_mut(&id) {
                Some(article) => {
                    if finished.iter().any(|(c, m)| *c == chat.id && *m == id) {
                        // It was continued.
                        fill(&article.element, chat, message);
                        article.rating = message.rating;
                    } else if article.rating != message.rating {
                        article.rating = message.rating;
                        set(&article.element, "data-rating", rating_words(message.rating));
                    }
                }
                None if is_over(message, now.busy) => self.add(&root, chat, message),
                None => {}
            }
        }
        self.seen = Some(now);
    }

    fn add(&mut self, root: &Element, chat: &Chat, message: &Message) {
        let made = web_sys::window().and_then(|w| w.document()).and_then(|d| d.create_element("article").ok());
        let Some(element) = made else { return };
        fill(&element, chat, message);
        if root.append_child(&element).is_err() {
            return;
        }
        self.articles.insert(message.id, Article { element, rating: message.rating });
        self.order.push_back(message.id);
        while self.order.len() > MOST {
            if let Some(oldest) = self.order.pop_front().and_then(|id| self.articles.get(&id)) {
                oldest.element.remove();
            }
        }
    }

    fn be_quiet(&mut self, root: &Element, quiet: bool) {
        if self.quiet != quiet {
            self.quiet = quiet;
            set(root, "aria-live", if quiet { "off" } else { "polite" });
        }
    }
}

/// Whether nothing will be added to a message for now. What was never finished is over once nothing is being written.
fn is_over(message: &Message, busy: bool) -> bool {
    !busy || message.answer.as_ref().is_none_or(|a| a.stop != Stop::Unfinished)
}

/// Writes a message, and what is known of it.
fn fill(element: &Element, chat: &Chat, message: &Message) {
    let answers = message.role == Role::Assistant;
    element.set_class_name(if answers { "answer" } else { "question" });
    set(element, "aria-label", message.author.as_deref().unwrap_or(if answers { "Answer" } else { "Question" }));
    set(element, "data-chat", &chat.id.0);
    set(element, "data-message", &message.id.0.to_string());
    if answers {
        set(element, "data-rating", rating_words(message.rating));
    }
    if let Some(answer) = &message.answer {
        if let Some(stats) = &answer.stats {
            set(element, "data-prompt-tokens", &stats.prompt_tokens.to_string());
            set(element, "data-reused-tokens", &stats.reused_tokens.to_string());
            set(element, "data-tokens", &stats.generated_tokens.to_string());
            set(element, "data-prefill-seconds", &stats.prefill_seconds.to_string());
            set(element, "data-decode-seconds", &stats.decode_seconds.to_string());
            if stats.drafted > 0 {
                set(element, "data-drafted-tokens", &stats.drafted.to_string());
                set(element, "data-accepted-tokens", &stats.accepted.to_string());
            }
        }
        if let Some(speed) = answer.tokens_per_second() {
            set(element, "data-tokens-per-second", &speed.to_string());
        }
        if let Some(rate) = answer.hit_rate() {
            set(element, "data-hit-rate", &rate.to_string());
        }
        set(element, "data-stop", stop_words(&answer.stop));
        if let Stop::Failed(why) = &answer.stop {
            set(element, "data-problem", why);
        }
    }
    element.set_text_content(Some(&text_of(message)));
}

/// What is said, without the reasoning; all of it where there is nothing else.
fn text_of(message: &Message) -> String {
    let Some(answer) = &message.answer else { return message.text.clone() };
    let mut splitter = Splitter::new(answer.thinking);
    let mut pieces = splitter.push(&message.text);
    pieces.extend(splitter.finish());
    let said = pieces.iter().filter_map(|p| match p {
        Piece::Answer(text) => Some(text.as_str()),
        Piece::Thought(_) => None,
    });
    let said: String = said.collect();
    if said.trim().is_empty() { message.text.clone() } else { said.trim().to_owned() }
}

fn rating_words(rating: Option<Rating>) -> &'static str {
    match rating {
        Some(Rating::Good) => "good",
        Some(Rating::Bad) => "bad",
        None => "",
    }
}

fn stop_words(stop: &Stop) -> &'static str {
    match stop {
        Stop::Unfinished => "unfinished",
        Stop::End => "end",
        Stop::Length => "length",
        Stop::Context => "context",
        Stop::Cancelled => "cancelled",
        Stop::Failed(_) => "failed",
    }
}

fn set(element: &Element, name: &str, value: &str) {
    // Names are constants that every element takes.
    let _ = element.set_attribute(name, value);
}
