//! What the address of the page says: how models are loaded this time, and how answers are made in the conversation that it
//! begins with.
//!
//! `?device=cpu&budget=30MiB&ctx=512&draft=1`, `?model=URL`, `?temp=0&top_k=40&top_p=0.9&min_p=0.05&seed=7&tokens=100&system=TEXT`.

use std::{fmt::Display, str::FromStr};

use pleiad_app::{
    chats::Setup,
    loading::options,
    settings::{LoadChange, LoadSettings},
    sizes,
};
use web_sys::UrlSearchParams;

/// What the address says.
#[derive(Default)]
pub struct Query {
    /// Changes how models are loaded.
    pub load: Option<LoadChange>,
    /// How answers are made.
    pub setup: Option<Setup>,
    /// The address of a model.
    pub model: Option<String>,
    /// What cannot be understood, in words.
    pub complaints: Vec<String>,
}

impl Query {
    /// What this page's address says.
    pub fn of_page() -> Self {
        let search = web_sys::window().and_then(|w| w.location().search().ok());
        let fields = search.and_then(|s| UrlSearchParams::new_with_str(&s).ok());
        fields.map(|fields| Self::read(&|name| fields.get(name))).unwrap_or_default()
    }

    fn read(field: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut complaints = Vec::new();
        let device = said(field, "device", &mut complaints, |text| options::device(text).map(|_| text.to_owned()));
        let budget = said(field, "budget", &mut complaints, |text| sizes::parse(text, 1));
        let context = said(field, "ctx", &mut complaints, number::<usize>);
        let draft = said(field, "draft", &mut complaints, number::<usize>);
        let any = device.is_some() || budget.is_some() || context.is_some() || draft.is_some();
        let load = any.then(|| -> LoadChange {
            Box::new(move |settings: &mut LoadSettings| {
                settings.device = device.unwrap_or_else(|| std::mem::take(&mut settings.device));
                settings.memory_budget = budget.or(settings.memory_budget);
                settings.context = context.or(settings.context);
                settings.draft = draft.or(settings.draft);
            })
        });
        let mut setup = Setup::default();
        let sampling = &mut setup.sampling;
        sampling.temperature = said(field, "temp", &mut complaints, |text| within(text, 0.0, f32::MAX));
        sampling.top_k = said(field, "top_k", &mut complaints, number);
        sampling.top_p = said(field, "top_p", &mut complaints, |text| within(text, 0.0, 1.0));
        sampling.min_p = said(field, "min_p", &mut complaints, |text| within(text, 0.0, 1.0));
        sampling.seed = said(field, "seed", &mut complaints, number);
        setup.max_tokens = said(field, "tokens", &mut complaints, number);
        setup.system = field("system").unwrap_or_default();
        let setup = (setup != Setup::default()).then_some(setup);
        Self { load, setup, model: field("model").filter(|url| !url.is_empty()), complaints }
    }
}

/// What a field says, if it is there and can be understood.
fn said<T>(
    field: &dyn Fn(&str) -> Option<String>,
    name: &str,
    complaints: &mut Vec<String>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let text = field(name)?;
    read(&text).map_err(|why| complaints.push(format!("{name}={text} in the address is left out: {why}"))).ok()
}

fn number<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse::<T>().map_err(|e| e.to_string())
}

fn within(text: &str, least: f32, most: f32) -> Result<f32, String> {
    let x: f32 = number(text)?;
    if (least..=most).contains(&x) { Ok(x) } else { Err("it is out of range".into()) }
}
