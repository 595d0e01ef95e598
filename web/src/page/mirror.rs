//! Labelled elements for screen readers and scripts: what is drawn on the canvas is nothing to them.
//!
//! | module | what it holds |
//! |---|---|
//! | `input` | `#pleiad-input`: questions that were written there |
//! | `log` | `#pleiad-log`: what was said in the conversation that is open |
//! | `status` | `#pleiad-status`: what the program is at |
//! | `window`, `face` | `#pleiad-window`: every widget of the window, for those who asked for it |

mod face;
mod input;
mod log;
mod status;
mod window;

use egui::Context;
use pleiad_app::{
    loading::Wake,
    ui::{Action, App, app::Status as At},
};

use self::{input::Input, log::Log, status::Status};

/// All of them.
pub struct Mirror {
    input: Input,
    log: Log,
    status: Status,
}

impl Mirror {
    /// Finds them in the page. `wake` asks for a frame when a question was written.
    pub fn new(ctx: &Context, wake: Wake) -> Self {
        window::offer(ctx);
        Self { input: Input::new(wake), log: Log::new(), status: Status::new() }
    }

    /// Asks what was asked there, and shows what has changed.
    pub fn update(&mut self, ctx: &Context, app: &mut App) {
        // A question waits for the model, and for the answer before.
        if matches!(app.status(), At::Ready(_))
            && let Some(question) = self.input.take()
        {
            app.give(ctx, Action::Send(question));
            ctx.request_repaint();
        }
        self.log.update(app);
        self.status.update(app, self.input.waiting());
    }
}
