//! Packed experts in a file, packed once and mapped from then on.
//!
//! The file is little-endian u64 words, then records:
//!
//! | words | what they are |
//! |---|---|
//! | 3 | magic, version, fingerprint of the model |
//! | 1 + n | n, and the n banks that the file holds, ascending |
//! | 18 n | experts; format, rows, columns of gate, up, down; a record's offsets, sizes, stride; the first's start |
//! | 2 | records in all, bytes of the file |
//! | records | a check value of each |
//! | 1 | a check value of everything above |
//!
//! The banks' first records start at multiples of 64 KiB (the largest page of any platform), the others follow at the stride.
//! Everything but the list of banks follows from the model, so it is compared, not parsed.
//!
//! Nothing is flushed to the disk before the file gets its name, so a power cut may leave holes. A file that is opened is
//! compared with freshly packed samples; every record is checked when it is first used, and packed on the fly where damaged.

use std::{
    fs,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use pleiad_models::weights::Experts;

use super::{
    BlobLayout, PACKED_ROWS,
    fingerprint::{checksum, fingerprint_bits},
    layout::PARTS,
    parallel,
    temporary::Temporary,
};
use crate::model::Model;

const MAGIC: u64 = u64::from_le_bytes(*b"PleiadEB");
/// To be raised with every change of this file's layout or of the packed layout.
const VERSION: u64 = 1;
/// Alignment of a bank's records.
const PAGE: u64 = 64 << 10;

/// Where the records of a bank lie.
struct Section {
    bank: usize,
    experts: usize,
    record: BlobLayout,
    /// Offset of the first record.
    start: u64,
    /// Number of the first record, counted over the file.
    first: usize,
}

impl Section {
    /// Offset of an expert's record.
    fn offset(&self, expert: usize) -> u64 {
        self.start + expert as u64 * self.record.stride as u64
    }
}

/// What a file holds.
struct Contents {
    /// Ascending by bank.
    sections: Vec<Section>,
    records: usize,
    /// The words before the check values.
    header: Vec<u64>,
    /// Bytes of the file.
    len: u64,
}

impl Contents {
    /// Of a file with these banks (ascending, all of which have records).
    fn of(model: &Model, row_align: usize, fingerprint: u64, banks: &[usize]) -> Self {
        let experts_of = |b: &usize| model.banks[*b].len();
        let records = banks.iter().map(experts_of).sum();
        let words = 4 + 19 * banks.len() + 2 + records + 1;
        let mut len = (8 * words as u64).next_multiple_of(PAGE);
        let mut sections: Vec<Section> = Vec::with_capacity(banks.len());
        let mut first = 0;
        for &bank in banks {
            let (experts, record) = (model.banks[bank].len(), BlobLayout::record_of(&model.banks[bank], row_align));
            let section = Section { bank, experts, record, start: len, first };
            first += experts;
            len = section.offset(experts).next_multiple_of(PAGE);
            sections.push(section);
        }
        let mut header = vec![MAGIC, VERSION, fingerprint, banks.len() as u64];
        header.extend(banks.iter().map(|&b| b as u64));
        for section in &sections {
            header.push(section.experts as u64);
            header.extend(PARTS.into_iter().flat_map(|part| {
                let t = model.banks[section.bank].first(part);
                [checksum(t.format.name().as_bytes()), t.rows as u64, t.cols as u64]
            }));
            let BlobLayout { offsets, sizes, stride, .. } = section.record;
            header.extend(offsets.into_iter().chain(sizes).chain([stride]).map(|x| x as u64));
            header.push(section.start);
        }
        header.extend([records as u64, len]);
        Self { sections, records, header, len }
    }

    fn section(&self, bank: usize) -> Option<&Section> {
        self.sections.iter().find(|s| s.bank == bank)
    }

    /// Bytes of all records.
    fn bytes(&self) -> u64 {
        self.sections.iter().map(|s| s.offset(s.experts) - s.start).sum()
    }

    /// The records in order, as section and expert.
    fn all(&self) -> impl Iterator<Item = (&Section, usize)> + Send {
        self.sections.iter().flat_map(|s| (0..s.experts).map(move |e| (s, e)))
    }
}

/// What is known of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Unknown,
    Sound,
    Damaged,
}

/// A mapped file of packed experts.
pub(super) struct BankFile {
    path: PathBuf,
    map: Mmap,
    contents: Contents,
    checksums: Vec<u64>,
    checks: Vec<Check>,
    damage: Option<String>,
}

impl BankFile {
    fn new(path: &Path, map: Mmap, contents: Contents, checksums: Vec<u64>) -> Self {
        let checks = vec![Check::Unknown; contents.records];
        Self { path: path.to_owned(), map, contents, checksums, checks, damage: None }
    }

    /// The file, or `None` where there is none; an error says what is wrong with it.
    fn open(model: &Model, row_align: usize, fingerprint: u64, path: &Path) -> Result<Option<Self>, String> {
        let map = match fs::File::open(path).and_then(|file| map(&file)) {
            Ok(map) => map,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let word = |i: usize| map.get(8 * i..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if word(0) != Some(MAGIC) {
            return Err("is not a file of packed experts".into());
        }
        if word(1) != Some(VERSION) {
            return Err("was written by another version".into());
        }
        if word(2) != Some(fingerprint) {
            return Err("belongs to another model".into());
        }
        let damaged = || "its header is damaged".to_owned();
        let records = |experts: &Experts| BlobLayout::record_of(experts, row_align).stride > 0;
        let has_records = |b: &usize| model.banks.get(*b).is_some_and(records);
        let count = word(3).and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= model.banks.len()).ok_or_else(damaged)?;
        let banks: Option<Vec<usize>> =
            (4..4 + count).map(|i| usize::try_from(word(i)?).ok().filter(|bank| has_records(bank))).collect();
        let banks = banks.filter(|banks| banks.is_sorted_by(|a, b| a < b)).ok_or_else(damaged)?;
        let contents = Contents::of(model, row_align, fingerprint, &banks);
        if map.len() as u64 != contents.len {
            return Err(format!("has {} bytes instead of {}", map.len(), contents.len));
        }
        if contents.header.iter().enumerate().any(|(i, &expected)| word(i) != Some(expected)) {
            return Err(damaged());
        }
        let end = contents.header.len() + contents.records;
        let checksums: Vec<u64> = (contents.header.len()..end).map_while(word).collect();
        if word(end).is_none() || word(end) != map.get(..8 * end).map(checksum) {
            return Err(damaged());
        }
        let mut file = Self::new(path, map, contents, checksums);
        file.compare_samples(model)?;
        Ok(Some(file))
    }

    /// Compares the first, the middle and the last record with freshly packed ones.
    fn compare_samples(&mut self, model: &Model) -> Result<(), String> {
        let last = self.contents.records.saturating_sub(1);
        let mut samples = vec![0, last / 2, last];
        samples.dedup();
        let mut fresh = Vec::new();
        for number in samples {
            let Some((section, expert)) = self.contents.all().nth(number) else { continue };
            fresh.resize(section.record.stride, 0);
            section.record.pack(&model.banks[section.bank], expert, &mut fresh).map_err(|e| e.to_string())?;
            let bank = section.bank;
            if self.record(bank, expert) != Some(&fresh) {
                return Err(format!("expert {expert} of bank {bank} is damaged or another model's"));
            }
        }
        Ok(())
    }

    /// Whether all those banks are here.
    fn covers(&self, banks: &[usize]) -> bool {
        banks.iter().all(|&bank| self.contents.section(bank).is_some())
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> u64 {
        self.contents.bytes()
    }

    /// What was found to be damaged since the file was opened.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// The record of an expert, or `None` where there is none or it is damaged.
    pub fn record(&mut self, bank: usize, expert: usize) -> Option<&[u8]> {
        let section = self.contents.section(bank).filter(|s| expert < s.experts)?;
        let start = usize::try_from(section.offset(expert)).ok()?;
        let record = self.map.get(start..)?.get(..section.record.stride)?;
        let number = section.first + expert;
        let check = self.checks.get_mut(number)?;
        if *check == Check::Unknown {
            let is_sound = self.checksums.get(number) == Some(&checksum(record));
            *check = if is_sound { Check::Sound } else { Check::Damaged };
            if !is_sound && self.damage.is_none() {
                let what = format!("{}: expert {expert} of bank {bank} is damaged", self.path.display());
                self.damage = Some(format!("{what}; damaged experts are packed at every use, the file is made anew next time"));
                // If it cannot be removed, the next run finds the damage again.
                let _ = fs::remove_file(&self.path);
            }
        }
        (*check == Check::Sound).then_some(record)
    }
}

/// The whole file, read-only.
fn map(file: &fs::File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only, and this program never writes to such a file once it has its name: it puts another in its
    // place. As with every mapped file, a program that truncates it meanwhile makes later reads fail (SIGBUS); one that rewrites
    // it changes the weights. Nothing that was checked on opening is used to index unchecked.
    unsafe { Mmap::map(file) }
}

/// The packed experts of the banks `needed` (ascending, all of which have records) in `directory`, packed where there is no
/// sound file of them. Banks of an earlier file stay, disk permitting, so that runs with different budgets do not take turns at
/// packing. Also returns what was wrong with an earlier file; an error says why there is none now.
///
/// Devices share a file unless rows at multiples of `row_align` bytes make another one of it.
pub(super) fn open_or_build(
    model: &Model,
    row_align: usize,
    needed: &[usize],
    directory: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(BankFile, Option<String>), String> {
    let fingerprint = fingerprint_bits(model).map_err(|e| e.to_string())?;
    let alike = |experts: &Experts| BlobLayout::record_of(experts, row_align) == BlobLayout::record_of(experts, PACKED_ROWS);
    let rows = if model.banks.iter().all(alike) { String::new() } else { format!("-{row_align}") };
    let path = directory.join(format!("{fingerprint:016x}{rows}.bank"));
    let (mut wanted, mut notice) = (needed.to_vec(), None);
    match BankFile::open(model, row_align, fingerprint, &path) {
        Ok(Some(file)) if file.covers(needed) => return Ok((file, None)),
        Ok(Some(file)) => {
            wanted.extend(file.contents.sections.iter().map(|s| s.bank));
            wanted.sort_unstable();
            wanted.dedup();
        }
        Ok(None) => {}
        Err(what) => notice = Some(format!("{}: {what}; it was made anew", path.display())),
    }
    let mut attempt =
        |banks: &[usize]| build(model, Contents::of(model, row_align, fingerprint, banks), directory, &path, progress);
    let built = match attempt(&wanted) {
        Err(e) if e.kind() == io::ErrorKind::StorageFull && wanted != needed => attempt(needed),
        built => built,
    };
    built.map(|file| (file, notice)).map_err(|e| format!("{}: {e}", path.display()))
}

/// Packs a file under a temporary name and renames it when it is whole.
fn build(
    model: &Model,
    contents: Contents,
    directory: &Path,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<BankFile> {
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    let mut temporary = Temporary::new(directory, &stem)?;
    temporary.file().set_len(contents.len)?;

    let (total, mut done) = (contents.bytes(), 0);
    let mut checksums = vec![0; contents.records];
    let experts = |section: &Section| -> &Experts { &model.banks[section.bank] };
    parallel::for_each(
        contents.all(),
        // Each thread has a position of its own in the file.
        || Ok((fs::OpenOptions::new().write(true).open(temporary.path())?, Vec::new())),
        |(file, record), (section, expert)| {
            record.resize(section.record.stride, 0);
            section.record.pack(experts(section), expert, record).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(section.offset(expert)))?;
            file.write_all(record)?;
            Ok((section.first + expert, checksum(record), record.len() as u64))
        },
        |(number, value, bytes)| {
            checksums[number] = value;
            done += bytes;
            progress(done, total);
        },
    )?;

    let mut head: Vec<u8> = contents.header.iter().chain(&checksums).flat_map(|word| word.to_le_bytes()).collect();
    head.extend(checksum(&head).to_le_bytes());
    temporary.file().write_all(&head)?;
    temporary.persist(path)?;
    // The file that was written, whatever another process has put in its place since.
    let map = map(temporary.file())?;
    Ok(BankFile::new(path, map, contents, checksums))
}
