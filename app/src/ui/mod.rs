//! The app: what is drawn, and the actions it asks for.
//!
//! One direction of data: [`App`] owns everything; a panel is a function that draws what it is given, keeps what only it needs
//! (an open editor, a scroll position) in a view struct of its own, and pushes [`Action`]s. [`App`] carries them out after all
//! panels were drawn. Panels never call engines, storage or each other.
//!
//! | module | what it holds |
//! |---|---|
//! | [`app`] | the state of the program, its frame, and what actions do |
//! | [`action`] | everything that a panel can ask for |
//! | [`command`] | every command with its name and shortcut |
//! | [`theme`] | colours, sizes and fonts |
//! | [`chat`] | the conversation: messages, markdown, the box to write in |
//! | [`experts`] | the experts: grid, strip, timeline, measures, domains |
//! | [`sidebar`] | the list of conversations, and search |
//! | [`setup`] | system prompt, sampling and second mind of a conversation |
//! | [`picker`] | choosing a model, and what would go where |
//! | [`performance`] | devices, memory and timings |
//! | [`preferences`] | settings |
//! | [`palette`] | the command palette, and the list of shortcuts |
//! | [`files`] | files that a person chooses |
//! | [`formula`] | formulas in TeX, typeset |
//! | [`icons`] | icons as lines |
//! | [`fonts`] | the fonts of formulas |
//! | [`toasts`] | what went wrong, and what can be undone |
//! | [`journal`] | the log |
//! | [`plots`] | marks on the axes of plots |
//! | [`parts`] | small things that several panels draw |

pub mod action;
pub mod app;
pub mod chat;
pub mod command;
pub mod experts;
pub mod files;
pub mod fonts;
pub mod formula;
pub mod icons;
pub mod journal;
pub mod palette;
pub mod parts;
pub mod performance;
pub mod picker;
pub mod plots;
pub mod preferences;
pub mod setup;
pub mod sidebar;
pub mod theme;
pub mod toasts;

pub use action::{Action, Page};
pub use app::App;
pub use command::Command;
pub use theme::Theme;
