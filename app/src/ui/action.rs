//! Everything that a panel can ask for.

use crate::{
    chats::{ChatId, MessageId, Rating, Setup},
    loading::Source,
    settings::Settings,
};

use super::Command;

/// What the middle of the window shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Page {
    /// The conversation, with the experts beside it where there is room.
    #[default]
    Chat,
    /// The experts alone.
    Experts,
    /// Devices, memory and timings.
    Performance,
    /// Settings.
    Settings,
    /// The log.
    Log,
}

/// How a conversation is written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// For people: the path that is shown.
    Markdown,
    /// For programs: the whole tree with statistics.
    Json,
}

/// How a record of the experts is written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceExport {
    /// A row for each expert chosen.
    Csv,
    /// The same as JSON lines.
    JsonLines,
    /// The grid as it is shown, with its legend.
    Png,
}

/// Something that a panel asks for. [`super::App`] carries it out once all panels were drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A command, as from its shortcut.
    Run(Command),
    /// Another page.
    Go(Page),

    /// Opens a conversation.
    OpenChat(ChatId),
    /// Opens a conversation at a message.
    OpenMessage(ChatId, MessageId),
    /// Names a conversation.
    Rename(ChatId, String),
    /// Keeps it at the top, or no longer.
    Pin(ChatId, bool),
    /// Deletes it, with an offer to undo.
    Delete(ChatId),
    /// Takes it back.
    Undelete(ChatId),
    /// Writes it to a file that a person chooses.
    Export(ChatId, ExportFormat),
    /// Reads conversations from a file that a person chooses.
    Import,

    /// Says something in the conversation that is open.
    Send(String),
    /// Stops the answer under way in it.
    Stop,
    /// Answers the same prompt anew.
    Regenerate(MessageId),
    /// Says something else in the place of a message.
    Edit(MessageId, String),
    /// Goes on with an answer that ended early.
    Continue(MessageId),
    /// Rates an answer, or takes the rating back.
    Rate(MessageId, Option<Rating>),
    /// Shows a message among its siblings.
    Show(MessageId),
    /// Changes how answers of the open conversation are made.
    SetSetup(Setup),

    /// Opens the picker.
    OpenPicker,
    /// Asks the person for a file, or a folder, and shows it in the picker.
    ChooseModel {
        /// A folder rather than a file.
        folder: bool,
    },
    /// Looks at a model, for its price.
    Examine(Source),
    /// Loads a model with the current settings. `keep`: beside the one that is loaded.
    Load {
        /// Which.
        source: Source,
        /// Beside the others.
        keep: bool,
    },
    /// Stops loading.
    CancelLoading,
    /// Lets a model go.
    Unload(String),
    /// Downloads a model from that address, or goes on with a download that was stopped.
    Download(String),
    /// Stops the download of that name; what is here stays.
    StopDownload(String),
    /// Removes what is kept under that name.
    RemoveKept(String),
    /// Keeps a copy of a file that was opened.
    Keep(Source),
    /// Changes settings.
    SetSettings(Box<Settings>),
    /// Looks for devices again.
    LookForDevices,

    /// Reads texts to see which experts they use: names and texts.
    Survey(Vec<(String, String)>),
    /// Stops reading texts.
    StopSurveys,
    /// Writes what was recorded of the experts to a file that a person chooses.
    ExportTrace(TraceExport),
    /// Reads a record of the experts from a file that a person chooses, to replay it.
    ImportTrace,

    /// Puts a text on the clipboard, and says so.
    Copy(String),
    /// Opens an address in the browser.
    Visit(String),
    /// Tells a person something that went wrong.
    Complain(String),
    /// Tells a person something.
    Tell(String),
}
