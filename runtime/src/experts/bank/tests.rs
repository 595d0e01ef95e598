#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod padded;
pub(in crate::experts) mod ranged;

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Barrier, atomic::AtomicU64, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, SystemTime},
};

use pleiad_models::{
    Bytes, Checkpoint, Format, Tensor,
    blocks::packed_row_bytes,
    weights::{ExpertPart, Experts, Mlp},
};

use super::{fingerprint::checksum, layout::is_stored_packed, temporary::Temporary, *};

/// A directory of its own, removed with the value.
pub(in crate::experts) struct TempDir(PathBuf);

impl TempDir {
    pub(in crate::experts) fn new(name: &str) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let unique = format!("pleiad-runtime-{}-{}-{name}", std::process::id(), COUNTER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(in crate::experts) fn path(&self) -> &Path {
        &self.0
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Best effort: the system's temporary directory is cleaned anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Pseudo-random bytes (splitmix64).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..len).map(|_| word() as u8).collect()
}

fn tensor(format: Format, count: usize, rows: usize, cols: usize, seed: u64) -> Tensor {
    let data = noise(count * rows * format.row_bytes(cols).unwrap(), seed);
    let scales = (format == Format::F8E4M3).then(|| noise(4 * rows.div_ceil(128) * cols.div_ceil(128), !seed));
    Tensor { name: format!("t{seed}"), format, count, rows, cols, data: Bytes::new(data), scales: scales.map(Bytes::new) }
}

const H: usize = 512;
const I: usize = 256;

fn stacked(formats: [Format; 3], experts: usize, seed: u64) -> Experts {
    Experts::Stacked(Mlp {
        gate: tensor(formats[0], experts, I, H, seed),
        up: tensor(formats[1], experts, I, H, seed + 1),
        down: tensor(formats[2], experts, H, I, seed + 2),
    })
}

fn separate(format: Format, experts: usize, h: usize, i: usize, seed: u64) -> Experts {
    let mlp =
        |s| Mlp { gate: tensor(format, 1, i, h, s), up: tensor(format, 1, i, h, s + 1), down: tensor(format, 1, h, i, s + 2) };
    Experts::Separate((0..experts as u64).map(|e| mlp(seed + 10 * e)).collect())
}

/// Banks of many kinds; 0 and 3 lie in the checkpoint as they are packed.
fn banks(seed: u64) -> Vec<Experts> {
    vec![
        stacked([Format::Q4K; 3], 5, seed),
        stacked([Format::Q4K, Format::Q4K, Format::Q6K], 6, seed + 100),
        stacked([Format::Q8_0; 3], 4, seed + 200),
        separate(Format::BF16, 3, 64, 32, seed + 300),
        separate(Format::F8E4M3, 5, 200, 131, seed + 400),
        separate(Format::F16, 4, 35, 33, seed + 500),
        stacked([Format::MXFP4, Format::BF16, Format::Q5_1], 3, seed + 600),
        stacked([Format::Q3K, Format::IQ4XS, Format::Q5K], 2, seed + 700),
    ]
}

fn model(seed: u64) -> Arc<Model> {
    let tiny = Checkpoint::tiny().unwrap();
    Arc::new(Model { banks: banks(seed), ..Model::new(&tiny.config, &tiny.weights) })
}

/// The blob as the GPU's loader writes it into a cleared buffer: each part packed at its place.
fn expected(model: &Model, bank: usize, expert: usize) -> Vec<u8> {
    expected_rows(model, bank, expert, PACKED_ROWS)
}

/// The same with rows at multiples of `row_align` bytes.
fn expected_rows(model: &Model, bank: usize, expert: usize, row_align: usize) -> Vec<u8> {
    let experts = &model.banks[bank];
    let mut blob: Vec<u8> = Vec::new();
    for part in [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down] {
        let m = experts.matrix(expert, part);
        let row = packed_row_bytes(m.format, m.cols);
        let mut packed = vec![0xa5; m.rows * row];
        m.pack(&mut packed);
        blob.resize(blob.len().next_multiple_of(16), 0);
        let start = blob.len();
        for bytes in packed.chunks(row) {
            blob.extend(bytes);
            blob.resize(start + (blob.len() - start).next_multiple_of(row_align), 0);
        }
    }
    blob.resize(blob.len().next_multiple_of(256), 0);
    blob
}

/// The blob as the bank hands it out, and in how many pieces.
fn handed_out(host: &mut HostBank, bank: usize, expert: usize) -> (Vec<u8>, usize) {
    let (mut blob, mut puts) = (vec![0; host.layout(bank).stride], 0);
    let mut put = |at: usize, bytes: &[u8]| {
        assert!(at.is_multiple_of(16) && bytes.len().is_multiple_of(4));
        blob[at..at + bytes.len()].copy_from_slice(bytes);
        puts += 1;
        Ok(())
    };
    host.blob(bank, expert as u16, &mut put).unwrap();
    (blob, puts)
}

/// Every blob of every bank, in an order that mixes layouts.
fn assert_right(host: &mut HostBank, model: &Model) {
    for expert in 0..6 {
        for bank in 0..model.banks.len() {
            if expert < model.banks[bank].len() {
                let (blob, puts) = handed_out(host, bank, expert);
                assert!(blob == expected(model, bank, expert), "bank {bank}, expert {expert}, {:?}", host.kind());
                assert_eq!(puts, if [2, 4, 5].contains(&bank) { 1 } else { 3 }, "bank {bank}");
            }
        }
    }
}

const ALL: [bool; 8] = [true; 8];

fn only(banks: &[usize]) -> [bool; 8] {
    std::array::from_fn(|b| banks.contains(&b))
}

/// Opens with a directory, and says whether anything was packed.
fn open(model: &Arc<Model>, partial: &[bool], dir: &Path) -> (HostBank, bool) {
    let mut last = (0, 0);
    let host = HostBank::open(model, partial, Some(dir), &mut |done, total| {
        assert!(last.0 < done && done <= total && (last.1 == 0 || last.1 == total));
        last = (done, total);
    });
    assert_eq!(last.0, last.1);
    (host.unwrap(), last.1 > 0)
}

/// The one file of a directory.
fn only_file(dir: &TempDir) -> PathBuf {
    let names = dir.names();
    assert!(names.len() == 1 && names[0].len() == 21 && names[0].ends_with(".bank"), "{names:?}");
    dir.path().join(&names[0])
}

#[test]
fn blobs_are_aligned() {
    let layout = BlobLayout::new([100, 20, 4], [20, 4, 4]);
    assert_eq!(layout, BlobLayout { offsets: [0, 112, 144], sizes: [100, 20, 4], rows: [20, 4, 4], stride: 256 });
    assert_eq!(BlobLayout::new([256; 3], [4; 3]).stride, 768);
    assert_eq!(BlobLayout::new([0; 3], [4; 3]).stride, 0);
    for bank in banks(1) {
        let layout = BlobLayout::of(&bank, PACKED_ROWS);
        assert!(layout.offsets.iter().all(|o| o.is_multiple_of(16)) && layout.stride.is_multiple_of(256));
        assert!(layout.offsets[2] + layout.sizes[2] <= layout.stride);
    }
}

/// `is_stored_packed` is a statement about the packing: here is the packing's opinion.
#[test]
fn tensors_stored_as_packed_are_known() {
    let mut as_stored = Vec::new();
    for format in Format::ALL {
        for cols in [format.block_len(), 2 * format.block_len(), 3 * format.block_len(), 512, 768] {
            let t = tensor(format, 2, 3, cols, cols as u64);
            let m = t.matrix(1);
            let mut packed = vec![0; m.rows * packed_row_bytes(format, cols)];
            m.pack(&mut packed);
            assert_eq!(is_stored_packed(&t), packed == m.data, "{format}, {cols} columns");
            if packed == m.data && !as_stored.contains(&format) {
                as_stored.push(format);
            }
        }
    }
    use Format::{BF16, F16, F32, IQ4XS, Q2K, Q4K, Q5K};
    assert_eq!(as_stored, [F32, F16, BF16, Q2K, Q4K, Q5K, IQ4XS]);
}

#[test]
fn every_home_hands_out_the_same_blobs() {
    let (model, dir) = (model(1), TempDir::new("homes"));
    let (mut host, packed) = open(&model, &ALL, dir.path());
    assert_eq!((host.kind(), packed, host.notice()), (BankKind::File, true, None));
    assert_right(&mut host, &model);
    let bytes = host.bytes();
    assert!(bytes > 0 && bytes < fs::metadata(only_file(&dir)).unwrap().len());

    let mut last = (0, 0);
    let mut host =
        HostBank::within(HostBank::on_the_fly(&model), &ALL, None, bytes, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!((host.kind(), host.bytes(), host.notice(), last), (BankKind::Memory, bytes, None, (bytes, bytes)));
    assert_right(&mut host, &model);

    let mut host =
        HostBank::within(HostBank::on_the_fly(&model), &ALL, None, bytes - 1, &mut |_, _| panic!("nothing is packed ahead"))
            .unwrap();
    assert_eq!((host.kind(), host.bytes()), (BankKind::OnTheFly, 0));
    assert!(host.notice().is_some_and(|n| n.contains("MiB")), "{:?}", host.notice());
    assert_right(&mut host, &model);

    let mut host = HostBank::on_the_fly(&model);
    assert_eq!((host.kind(), host.notice()), (BankKind::OnTheFly, None));
    assert_right(&mut host, &model);
}

#[test]
fn what_lies_in_the_checkpoint_is_kept_nowhere_else() {
    let (model, dir) = (model(2), TempDir::new("checkpoint"));
    for partial in [&only(&[0, 3])[..], &[false; 8], &[true], &[]] {
        let (mut host, packed) = open(&model, partial, dir.path());
        assert_eq!((host.kind(), host.bytes(), packed), (BankKind::Checkpoint, 0, false));
        assert_right(&mut host, &model);
        assert!(dir.names().is_empty());
    }
    // Of a bank with two parts that are as stored only the third is kept.
    let (mut host, _) = open(&model, &only(&[0, 1]), dir.path());
    let down = H * packed_row_bytes(Format::Q6K, I);
    assert_eq!((host.kind(), host.bytes()), (BankKind::File, 6 * down.next_multiple_of(256) as u64));
    assert_right(&mut host, &model);
}

#[test]
fn no_such_expert_is_an_error_and_errors_of_put_are_passed_on() {
    let mut host = HostBank::on_the_fly(&model(3));
    for (bank, expert) in [(0, 5), (8, 0), (usize::MAX, u16::MAX)] {
        assert!(matches!(host.blob(bank, expert, &mut |_, _| panic!("nothing to put")), Err(Error::Invalid(_))));
    }
    let mut puts = 0;
    let mut refuse = |_: usize, _: &[u8]| {
        puts += 1;
        Err(Error::Gpu("no".into()))
    };
    assert!(matches!(host.blob(0, 0, &mut refuse), Err(Error::Gpu(_))));
    assert!(matches!(host.blob(2, 0, &mut refuse), Err(Error::Gpu(_))));
    assert_eq!(puts, 2);
}

#[test]
fn a_file_is_packed_once_and_grows_with_the_banks_asked_for() {
    let (model, dir) = (model(4), TempDir::new("reuse"));
    let packed = |banks: &[usize]| {
        let (mut host, packed) = open(&model, &only(banks), dir.path());
        assert_eq!((host.kind(), host.notice()), (BankKind::File, None));
        assert_right(&mut host, &model);
        only_file(&dir);
        packed
    };
    assert!(packed(&[2, 4]));
    assert!(!packed(&[2, 4]));
    assert!(!packed(&[0, 2]));
    assert!(packed(&[1]));
    assert!(!packed(&[1, 2, 4]));
    assert!(packed(&[1, 2, 3, 4, 5, 6, 7]));
    assert!(!packed(&[6]));
}

#[test]
fn damaged_and_foreign_files_are_made_anew() {
    const TWO: [bool; 8] = [false, false, true, false, true, false, false, false];
    let (ours, theirs) = (model(5), model(6));
    let dir = TempDir::new("damage");
    open(&ours, &TWO, dir.path());
    let file = only_file(&dir);
    let whole = fs::read(&file).unwrap();
    let foreign = {
        let dir = TempDir::new("foreign");
        open(&theirs, &TWO, dir.path());
        assert_ne!(only_file(&dir).file_name(), file.file_name());
        fs::read(only_file(&dir)).unwrap()
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let word = |i: usize, value: u64| {
        let mut bytes = whole.clone();
        bytes[8 * i..8 * i + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let mut cases = vec![Vec::new(), vec![0; 100], whole[..7].to_vec(), whole[..8 * 20].to_vec(), foreign, vec![0; whole.len()]];
    cases.extend([whole.len() - 1, whole.len() / 2].map(|len| whole[..len].to_vec()));
    cases.push([&whole[..], &[0]].concat());
    // Another file with a sound header of its own, but this model's name in it.
    cases.push([&whole[..24], &cases[4][24..]].concat());
    // Every word of the header with its check values: 4 + 19 * 2 + 2 + 9 + 1.
    cases.extend((0..54).map(|i| flipped(8 * i + i % 8)));
    cases.extend([u64::MAX, 1 << 40, 9, 8, 3, 1, 0].map(|n| word(3, n)));
    cases.extend([u64::MAX, 0, 8, 4].map(|bank| word(4, bank)));
    // The first record.
    cases.push(flipped(64 << 10));
    for (i, bytes) in cases.into_iter().enumerate() {
        fs::write(&file, &bytes).unwrap();
        let (mut host, packed) = open(&ours, &TWO, dir.path());
        assert!(packed && host.kind() == BankKind::File, "case {i}");
        assert!(host.notice().is_some_and(|n| n.contains("made anew")), "case {i}: {:?}", host.notice());
        if i % 16 == 0 {
            assert_right(&mut host, &ours);
        }
        assert!(fs::read(only_file(&dir)).unwrap() == whole, "case {i}");
    }
    let (host, packed) = open(&ours, &TWO, dir.path());
    assert!(!packed && host.notice().is_none());
}

/// The header says that all is well, a sample agrees, and yet.
#[test]
fn a_damaged_record_is_found_when_it_is_used() {
    let (model, dir) = (model(7), TempDir::new("late"));
    open(&model, &only(&[2]), dir.path());
    let file = only_file(&dir);
    let mut bytes = fs::read(&file).unwrap();
    let stride = BlobLayout::of(&model.banks[2], PACKED_ROWS).stride;
    // Expert 2 of 4: the samples are 0, 1 and 3. A hole, as a power cut leaves it.
    bytes[(64 << 10) + 2 * stride..][..4096].fill(0);
    fs::write(&file, bytes).unwrap();
    let (mut host, packed) = open(&model, &only(&[2]), dir.path());
    assert!(!packed && host.notice().is_none());
    assert_eq!(handed_out(&mut host, 2, 1).0, expected(&model, 2, 1));
    assert!(host.notice().is_none());
    for _ in 0..2 {
        assert_eq!(handed_out(&mut host, 2, 2).0, expected(&model, 2, 2));
        assert!(host.notice().is_some_and(|n| n.contains("expert 2 of bank 2")), "{:?}", host.notice());
    }
    assert_right(&mut host, &model);
    let (mut host, packed) = open(&model, &only(&[2]), dir.path());
    assert!(packed && host.notice().is_none());
    assert_right(&mut host, &model);
}

#[test]
fn where_the_disk_refuses_memory_serves() {
    let (model, dir) = (model(8), TempDir::new("refused"));
    let file = dir.path().join("a file");
    fs::write(&file, "not a directory").unwrap();
    let mut host = HostBank::within(HostBank::on_the_fly(&model), &ALL, Some(&file), u64::MAX, &mut |_, _| ()).unwrap();
    assert_eq!(host.kind(), BankKind::Memory);
    assert!(host.notice().is_some_and(|n| n.contains("a file") && n.contains("memory")), "{:?}", host.notice());
    assert_right(&mut host, &model);
    let mut host = HostBank::within(HostBank::on_the_fly(&model), &ALL, Some(&file), 0, &mut |_, _| ()).unwrap();
    assert_eq!(host.kind(), BankKind::OnTheFly);
    assert!(host.notice().is_some_and(|n| n.contains("a file") && n.contains("every use")), "{:?}", host.notice());
    assert_right(&mut host, &model);
    // The name is taken by something that cannot be replaced: nothing stays behind.
    let taken = dir.path().join(format!("{}.bank", fingerprint(&model).unwrap()));
    fs::create_dir_all(taken.join("inhabited")).unwrap();
    let mut host = HostBank::within(HostBank::on_the_fly(&model), &ALL, Some(dir.path()), u64::MAX, &mut |_, _| ()).unwrap();
    assert_eq!(host.kind(), BankKind::Memory);
    assert_right(&mut host, &model);
    assert_eq!(dir.names().len(), 2, "{:?}", dir.names());
}

#[test]
fn builders_at_the_same_time_do_not_disturb_each_other() {
    let (model, dir) = (model(9), TempDir::new("concurrent"));
    let barrier = Barrier::new(6);
    thread::scope(|scope| {
        for i in 0..6 {
            let (model, dir, barrier) = (&model, &dir, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for partial in [only(&[2, 4]), only(&[1 + i % 2]), ALL] {
                    let (mut host, _) = open(model, &partial, dir.path());
                    assert_eq!((host.kind(), host.notice()), (BankKind::File, None));
                    assert_right(&mut host, model);
                }
            });
        }
    });
    only_file(&dir);
    let (mut host, _) = open(&model, &ALL, dir.path());
    assert_right(&mut host, &model);
}

#[test]
fn leftovers_are_removed_when_they_are_old() {
    let dir = TempDir::new("leftovers");
    for (name, age) in [("a.bank.1.tmp", 7200), ("a.bank.2.tmp", 60), ("b.bank.1.tmp", 7200), ("a.bank", 7200)] {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    drop(Temporary::new(dir.path(), "a.bank").unwrap());
    assert_eq!(dir.names(), ["a.bank", "a.bank.2.tmp", "b.bank.1.tmp"]);
}

#[test]
fn the_first_error_ends_parallel_work() {
    let (mut done, mut taken) = (0, 0);
    let items = (0..1_000_000).inspect(|_| taken += 1);
    let work = |(): &mut (), i: i32| if i == 50 { Err(io::Error::other("fifty")) } else { Ok(i) };
    let error = parallel::for_each(items, || Ok(()), work, |_| done += 1).unwrap_err();
    assert_eq!(error.to_string(), "fifty");
    assert!(done < taken && taken < 1_000_000, "{done} of {taken}");
    let error = parallel::for_each(0..3, || Err::<(), _>(io::Error::other("no")), |(), _| Ok(()), |()| ()).unwrap_err();
    assert_eq!(error.to_string(), "no");
    let mut seen = Vec::new();
    parallel::for_each(0..100, || Ok(()), |(), i| Ok(i), |i| seen.push(i)).unwrap();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..100));
}

#[test]
fn fingerprints_tell_models_apart() {
    let base = model(10);
    let name = fingerprint(&base).unwrap();
    assert!(name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(name, fingerprint(&model(10)).unwrap());
    let mut names = vec![name, fingerprint(&model(11)).unwrap()];
    let mut edited = |edit: &dyn Fn(&mut Model)| {
        let mut model = Model::clone(&base);
        edit(&mut model);
        names.push(fingerprint(&model).unwrap());
    };
    edited(&|m| m.vecs[1][2] += 1.0);
    edited(&|m| m.mats[3].data = Bytes::new(noise(m.mats[3].data.len(), 1)));
    edited(&|m| m.banks[1] = stacked([Format::Q4K; 3], 6, 110));
    edited(&|m| m.banks[4] = separate(Format::F8E4M3, 5, 200, 131, 411));
    edited(&|m| m.banks.swap(0, 1));
    edited(&|m| m.config.moe.as_mut().unwrap().top_k += 1);
    let Experts::Separate(all) = &base.banks[4] else { panic!("separate") };
    let mut all = all.clone();
    let scales = all[4].gate.scales.as_ref().unwrap().len();
    all[4].gate.scales = Some(Bytes::new(vec![0; scales]));
    edited(&|m| m.banks[4] = Experts::Separate(all.clone()));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn check_values_see_every_byte() {
    for len in [0, 1, 31, 32, 33, 64, 100] {
        let bytes = noise(len, len as u64);
        let value = checksum(&bytes);
        for i in 0..len {
            let mut other = bytes.clone();
            other[i] ^= 1 << (i % 8);
            assert_ne!(checksum(&other), value, "byte {i} of {len}");
        }
        assert_ne!(checksum(&[&bytes[..], &[0]].concat()), value, "{len} and a zero");
    }
}

#[test]
fn available_memory_is_read() {
    assert_eq!(mem_available("MemTotal:  100 kB\nMemAvailable:   24576 kB\nx: 1"), Some(24576 << 10));
    for text in ["", "MemAvailable:", "MemAvailable: 5 MB", "MemAvailable: -5 kB", "MemAvailable: 99999999999999999999 kB"] {
        assert_eq!(mem_available(text), None, "{text}");
    }
    assert!(memory_limit() > 0);
}
