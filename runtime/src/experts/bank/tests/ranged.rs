//! Experts of checkpoints that are read in ranges.

use std::{io, sync::atomic::AtomicUsize};

use pleiad_models::Ranged;

use super::*;

/// A file that counts how it is read, and fails when it is told to.
pub(in crate::experts) struct Counted {
    bytes: Vec<u8>,
    reads: AtomicUsize,
    largest: AtomicUsize,
    /// Reads that still succeed.
    left: AtomicUsize,
}

impl Counted {
    /// Reads since this was last asked.
    pub(in crate::experts) fn reads(&self) -> usize {
        self.reads.swap(0, Relaxed)
    }

    /// The reads after the next `n` fail.
    pub(in crate::experts) fn fail_after(&self, n: usize) {
        self.left.store(n, Relaxed);
    }
}

impl Ranged for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_err() {
            return Err(io::Error::other("the file has gone"));
        }
        self.reads.fetch_add(1, Relaxed);
        self.largest.fetch_max(out.len(), Relaxed);
        out.copy_from_slice(&self.bytes[offset as usize..][..out.len()]);
        Ok(())
    }
}

/// The same model with its experts in a file that is read in ranges.
pub(in crate::experts) fn in_ranges(model: &Model) -> (Arc<Model>, Arc<Counted>) {
    let mut all = model.clone();
    let tensors = |bank: &mut Experts, each: &mut dyn FnMut(&mut Bytes)| {
        for t in bank.mlps_mut().iter_mut().flat_map(|m| [&mut m.gate, &mut m.up, &mut m.down]) {
            each(&mut t.data);
            t.scales.iter_mut().for_each(&mut *each);
        }
    };
    let mut bytes = Vec::new();
    all.banks.iter_mut().for_each(|bank| tensors(bank, &mut |data| bytes.extend_from_slice(data)));
    let none = || AtomicUsize::new(0);
    let file = Arc::new(Counted { bytes, reads: none(), largest: none(), left: AtomicUsize::new(usize::MAX) });
    let (ranged, name, mut at): (Arc<dyn Ranged>, Arc<str>, u64) = (Arc::<Counted>::clone(&file), "model.gguf".into(), 0);
    let mut replace = |data: &mut Bytes| {
        let len = data.len();
        *data = Bytes::ranged(&name, &ranged, at, len).unwrap();
        at += len as u64;
    };
    all.banks.iter_mut().for_each(|bank| tensors(bank, &mut replace));
    (Arc::new(all), file)
}

#[test]
fn experts_read_in_ranges_are_the_mapped_ones() {
    let mapped = model(20);
    let (ranged, file) = in_ranges(&mapped);
    let compare = |host: &mut HostBank, most: usize| {
        for bank in 0..mapped.banks.len() {
            for expert in 0..mapped.banks[bank].len() {
                let (blob, puts) = handed_out(host, bank, expert);
                assert!(blob == expected(&mapped, bank, expert), "bank {bank}, expert {expert}, {:?}", host.kind());
                assert!(puts <= most, "{puts} pieces");
            }
        }
    };
    // In memory: read once.
    let mut host = HostBank::within(HostBank::on_the_fly(&ranged), &ALL, None, u64::MAX, &mut |_, _| ()).unwrap();
    assert_eq!(host.kind(), BankKind::Memory);
    assert!(file.reads() > 0);
    compare(&mut host, 1);
    assert_eq!(file.reads(), 0);
    // At every use, but for those used last.
    let mut host =
        HostBank::within(HostBank::on_the_fly(&ranged), &ALL, None, 0, &mut |_, _| panic!("nothing is packed ahead")).unwrap();
    assert_eq!((host.kind(), host.bytes()), (BankKind::OnTheFly, 0));
    compare(&mut host, 1);
    assert!(file.reads() > 0);
    compare(&mut host, 1);
    assert_eq!(file.reads(), 0);
    let mut host = HostBank::on_the_fly(&ranged);
    host.recent = Recent::new(3 * host.layout(0).stride);
    (0..2).for_each(|_| compare(&mut host, 3));
    assert!(file.reads() > 0);
    // A directory serves models in ranges, too.
    let dir = TempDir::new("ranges");
    let (mut host, packed) = open(&ranged, &ALL, dir.path());
    assert!(packed && host.kind() == BankKind::File);
    compare(&mut host, 1);
    assert_eq!(fingerprint(&ranged).unwrap(), fingerprint(&mapped).unwrap());
}

/// Experts too large to be kept pass in parts.
#[test]
fn large_experts_pass_a_few_mib_at_a_time() {
    let tiny = Checkpoint::tiny().unwrap();
    let large = |format| {
        Experts::Stacked(Mlp {
            gate: tensor(format, 2, 2500, 2048, 1),
            up: tensor(format, 2, 700, 2048, 2),
            down: tensor(format, 2, 2048, 700, 3),
        })
    };
    let separate = separate(Format::F8E4M3, 2, 4096, 1300, 4);
    let mapped = Model { banks: vec![large(Format::F32), separate], ..Model::new(&tiny.config, &tiny.weights) };
    let (ranged, file) = in_ranges(&mapped);
    let mut host = HostBank::on_the_fly(&ranged);
    host.recent = Recent::new(0);
    for (bank, expert) in [(0, 0), (0, 1), (1, 1)] {
        let (blob, puts) = handed_out(&mut host, bank, expert);
        assert!(blob == expected(&mapped, bank, expert) && puts > 3, "{puts} pieces");
    }
    assert!(file.largest.load(Relaxed) <= 4 << 20 && host.scratch.capacity() < 8 << 20);
}

#[test]
fn reads_that_fail_are_told_and_may_succeed_later() {
    let mapped = model(21);
    let (ranged, file) = in_ranges(&mapped);
    let told = |e: Error| {
        let said = e.to_string();
        assert!(matches!(e, Error::Model(_)), "{said}");
        assert!(said.contains("model.gguf") && said.contains("tensor `t") && said.contains("the file has gone"), "{said}");
    };
    let mut host = HostBank::on_the_fly(&ranged);
    for reads in 0..3 {
        for bank in 0..mapped.banks.len() {
            file.fail_after(reads);
            told(host.blob(bank, 1, &mut |_, _| Ok(())).unwrap_err());
        }
    }
    file.fail_after(5);
    told(HostBank::within(HostBank::on_the_fly(&ranged), &ALL, None, u64::MAX, &mut |_, _| ()).err().unwrap());
    file.fail_after(0);
    assert!(matches!(fingerprint(&ranged), Err(pleiad_models::Error::Read { .. })));
    file.fail_after(usize::MAX);
    assert!(handed_out(&mut host, 1, 1).0 == expected(&mapped, 1, 1));
}
