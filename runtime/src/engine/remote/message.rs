//! What the two sides say to each other: serde's types in the form of `postcard`, numbers short and nothing named.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Error, Result,
    engine::{DoneReason, EngineInfo, Event, GenerateOptions, GenerationStats, MemoryUse, Progress},
    experts::{
        ExpertReport,
        trace::{Routed, Served},
    },
    sampling::SamplingParams,
};

/// What the page has to know before anything else.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub info: EngineInfo,
    pub experts: Option<ExpertReport>,
    pub resident: Flags,
    pub memory: MemoryUse,
}

/// What the page asks for. Sessions and generations have the numbers that the page gave them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Asked {
    Generate { number: u64, session: u64, prompt: Vec<u32>, sampling: SamplingParams, options: GenerateOptions },
    Cancel(u64),
    Close(u64),
}

/// What the worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// Something happened in the generation of that number.
    Event(u64, Happened),
    /// What [`super::super::Engine::experts`] tells from now on.
    Experts(Option<ExpertReport>),
    /// What [`super::super::Engine::resident`] tells from now on.
    Resident(Flags),
    /// What [`super::super::Engine::memory`] tells from now on.
    Memory(MemoryUse),
}

/// An [`Event`], without text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Happened {
    Prompt(Progress),
    Token { id: u32, logit: f32, activations: Option<Vec<u32>>, seconds: f64 },
    Routed(Rows),
    Notice(String),
    Done { reason: DoneReason, stats: GenerationStats },
    Failed(Failure),
}

impl Happened {
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Prompt(progress) => Self::Prompt(*progress),
            Event::Token { id, logit, activations, seconds, text: _ } => {
                Self::Token { id: *id, logit: *logit, activations: activations.as_ref().map(|a| a.to_vec()), seconds: *seconds }
            }
            Event::Routed(rows) => Self::Routed(Rows::of(rows)),
            Event::Notice(notice) => Self::Notice(notice.clone()),
            Event::Done { reason, stats, text: _ } => Self::Done { reason: *reason, stats: *stats },
            Event::Failed(error) => Self::Failed(Failure::of(error)),
        }
    }
}

/// An [`Error`]: those that mean more than their words, and the words of the others.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    DeviceLost(String),
    OutOfMemory { what: String, bytes: u64, limit: Option<u64> },
    Limit { what: String, needed: u64, limit: u64 },
    ContextFull { prompt: usize, context: usize, model: usize },
    Stopped(String),
    Other(String),
}

impl Failure {
    fn of(error: &Error) -> Self {
        match error.clone() {
            Error::DeviceLost(why) => Self::DeviceLost(why),
            Error::OutOfMemory { what, bytes, limit } => Self::OutOfMemory { what, bytes, limit },
            Error::Limit { what, needed, limit } => Self::Limit { what, needed, limit },
            Error::ContextFull { prompt, context, model } => Self::ContextFull { prompt, context, model },
            Error::Stopped(why) => Self::Stopped(why),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DeviceLost(why) => Self::DeviceLost(why),
            Failure::OutOfMemory { what, bytes, limit } => Self::OutOfMemory { what, bytes, limit },
            Failure::Limit { what, needed, limit } => Self::Limit { what, needed, limit },
            Failure::ContextFull { prompt, context, model } => Self::ContextFull { prompt, context, model },
            Failure::Stopped(why) => Self::Stopped(why),
            Failure::Other(words) => Self::Invalid(words),
        }
    }
}

/// Flags, eight to a byte.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Flags {
    count: usize,
    bits: Bytes,
}

impl Flags {
    pub fn of(flags: &[bool]) -> Self {
        let byte = |eight: &[bool]| eight.iter().rev().fold(0, |byte, &flag| (byte << 1) | u8::from(flag));
        Self { count: flags.len(), bits: Bytes(flags.chunks(8).map(byte).collect()) }
    }

    pub fn open(&self) -> Result<Vec<bool>> {
        let bits = &self.bits.0;
        if bits.len() != self.count.div_ceil(8) {
            return Err(malformed(&format!("{} flags in {} bytes", self.count, bits.len())));
        }
        Ok(bits.iter().flat_map(|byte| (0..8).map(move |bit| (byte >> bit) & 1 != 0)).take(self.count).collect())
    }
}

/// Rows of a trace. A long prompt has some 80 000 of them a chunk, so each is laid out flat: little-endian, in the order of
/// [`Routed`]'s fields.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rows(Bytes);

impl Rows {
    /// Bytes of a row.
    const ROW: usize = 4 + 3 * 2 + 4 + 1 + 8;

    pub fn of(rows: &[Routed]) -> Self {
        let mut bytes = Vec::with_capacity(rows.len() * Self::ROW);
        for &Routed { position, layer, rank, expert, weight, served, bytes: moved } in rows {
            bytes.extend_from_slice(&position.to_le_bytes());
            [layer, rank, expert].iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
            bytes.extend_from_slice(&weight.to_le_bytes());
            bytes.push(served as u8);
            bytes.extend_from_slice(&moved.to_le_bytes());
        }
        Self(Bytes(bytes))
    }

    pub fn open(&self) -> Result<Vec<Routed>> {
        let mut rows = Vec::with_capacity(self.0.0.len() / Self::ROW);
        for row in self.0.0.chunks(Self::ROW) {
            rows.push(Self::row(row).ok_or_else(|| malformed("a row of a trace is wrong"))?);
        }
        Ok(rows)
    }

    fn row(mut row: &[u8]) -> Option<Routed> {
        fn next<const N: usize>(row: &mut &[u8]) -> Option<[u8; N]> {
            let (first, rest) = row.split_first_chunk()?;
            *row = rest;
            Some(*first)
        }
        let row = &mut row;
        Some(Routed {
            position: u32::from_le_bytes(next(row)?),
            layer: u16::from_le_bytes(next(row)?),
            rank: u16::from_le_bytes(next(row)?),
            expert: u16::from_le_bytes(next(row)?),
            weight: f32::from_le_bytes(next(row)?),
            served: *Served::ALL.get(usize::from(next::<1>(row)?[0]))?,
            bytes: u64::from_le_bytes(next(row)?),
        })
    }
}

/// Bytes that are copied as they are; serde takes a vector's one by one.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|bytes| Self(bytes.to_vec()))
    }
}

/// A message. No type above can be refused by `postcard`: it refuses sequences of unknown length and maps of none, and there are
/// none. Were one refused all the same, the other side would find an empty message malformed.
pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Reads a message, all of it.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(malformed(&format!("{} bytes are left", rest.len()))),
        Err(e) => Err(malformed(&e.to_string())),
    }
}

fn malformed(what: &str) -> Error {
    Error::Invalid(format!("a message between the page and its worker cannot be understood: {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn routed() -> impl Strategy<Value = Routed> {
        let numbers = (any::<u32>(), any::<[u16; 3]>(), any::<f32>(), 0..Served::ALL.len(), any::<u64>());
        numbers.prop_map(|(position, [layer, rank, expert], weight, served, bytes)| Routed {
            position,
            layer,
            rank,
            expert,
            weight,
            served: Served::ALL[served],
            bytes,
        })
    }

    proptest! {
        #[test]
        fn rows_arrive_as_they_were(rows in vec(routed(), 0..40)) {
            let bytes = encode(&Rows::of(&rows));
            prop_assert_eq!(decode::<Rows>(&bytes).unwrap().open().unwrap(), rows);
        }

        #[test]
        fn flags_arrive_as_they_were(flags in vec(any::<bool>(), 0..70)) {
            let bytes = encode(&Flags::of(&flags));
            prop_assert_eq!(decode::<Flags>(&bytes).unwrap().open().unwrap(), flags);
        }
    }

    #[test]
    fn rows_and_flags_that_are_wrong_are_refused() {
        let row = Routed { position: 1, layer: 2, rank: 3, expert: 4, weight: 0.5, served: Served::Host, bytes: 5 };
        let mut rows = Rows::of(&[row]);
        rows.0.0.pop();
        assert!(rows.open().is_err());
        let mut rows = Rows::of(&[row]);
        rows.0.0[14] = Served::ALL.len() as u8;
        assert!(rows.open().is_err());
        let mut flags = Flags::of(&[true; 9]);
        flags.count = 17;
        assert!(flags.open().is_err());
        flags.count = usize::MAX;
        assert!(flags.open().is_err());
    }

    #[test]
    fn errors_keep_their_words() {
        let broken = pleiad_models::Error::io("a.gguf", std::io::Error::other("no disk"));
        for error in [
            Error::DeviceLost("unplugged".into()),
            Error::OutOfMemory { what: "a buffer".into(), bytes: 3 << 20, limit: Some(1 << 20) },
            Error::Limit { what: "positions".into(), needed: 3, limit: 2 },
            Error::ContextFull { prompt: 9, context: 8, model: 7 },
            Error::Stopped("why".into()),
            Error::Gpu("validation".into()),
            Error::Budget { what: "m".into(), budget: 1, least: 2 },
            broken.into(),
        ] {
            let bytes = encode(&Failure::of(&error));
            let arrived: Error = decode::<Failure>(&bytes).unwrap().into();
            assert_eq!(arrived.to_string(), error.to_string());
        }
        let full = Failure::of(&Error::ContextFull { prompt: 9, context: 8, model: 7 });
        assert!(matches!(full.into(), Error::ContextFull { prompt: 9, context: 8, model: 7 }));
    }
}
