//! Which expert lives in which slot: the host's mirror of the table on the device.

use std::collections::BTreeSet;

use super::policy::{ABSENT, HALF_LIFE, Heat};
use crate::{
    error::{Error, Result},
    model::Model,
};

/// For every bank (a mixture layer's experts, numbered as `Model::banks`): the slot of each expert, the expert of each slot, and
/// how hot each expert is. Table and slots are inverse to each other after any sequence of calls. Arguments out of range change
/// nothing and give `None`.
#[derive(Clone, Debug)]
pub struct Residency {
    banks: Vec<Bank>,
    half_life: f32,
    now: u32,
}

#[derive(Clone, Debug)]
struct Bank {
    /// The slot of each expert, or [`ABSENT`].
    table: Vec<u32>,
    /// The expert of each slot.
    owner: Vec<Option<u16>>,
    heat: Vec<Heat>,
    resident: usize,
}

impl Bank {
    fn slot_of(&self, expert: u16) -> Option<u32> {
        self.table.get(usize::from(expert)).copied().filter(|&slot| slot != ABSENT)
    }

    fn clear(&mut self, slot: u32) -> Option<u16> {
        let expert = self.owner.get_mut(slot as usize)?.take()?;
        if let Some(entry) = self.table.get_mut(usize::from(expert)) {
            *entry = ABSENT;
        }
        self.resident -= 1;
        Some(expert)
    }

    fn slots(&self) -> impl Iterator<Item = (u32, Option<u16>)> {
        (0u32..).zip(self.owner.iter().copied())
    }
}

impl Residency {
    /// All slots free, nothing used yet. `banks`: experts (at most 65536) and slots of each. `half_life` in tokens, [`HALF_LIFE`]
    /// where it is not positive.
    pub fn new(banks: &[(usize, usize)], half_life: f32) -> Self {
        let bank = |&(experts, slots): &(usize, usize)| {
            let experts = experts.min(1 << u16::BITS);
            Bank { table: vec![ABSENT; experts], owner: vec![None; slots], heat: vec![Heat::default(); experts], resident: 0 }
        };
        let half_life = if half_life > 0.0 { half_life } else { HALF_LIFE };
        Self { banks: banks.iter().map(bank).collect(), half_life, now: 0 }
    }

    /// A slot for every expert of a model: expert e lives in slot e.
    pub fn whole(model: &Model) -> Self {
        let banks: Vec<(usize, usize)> = model.banks.iter().map(|b| (b.len(), b.len())).collect();
        let mut all = Self::new(&banks, HALF_LIFE);
        for (bank, &(experts, _)) in banks.iter().enumerate() {
            for (expert, slot) in (0..=u16::MAX).zip(0..experts as u32) {
                all.place(bank, expert, slot);
            }
        }
        all
    }

    /// Number of banks.
    pub fn banks(&self) -> usize {
        self.banks.len()
    }

    /// Experts of a bank; 0 where there is no such bank.
    pub fn experts(&self, bank: usize) -> usize {
        self.banks.get(bank).map_or(0, |b| b.table.len())
    }

    /// Slots of a bank; 0 where there is no such bank.
    pub fn slots(&self, bank: usize) -> usize {
        self.banks.get(bank).map_or(0, |b| b.owner.len())
    }

    /// Whether a bank has fewer slots than experts.
    pub fn is_partial(&self, bank: usize) -> bool {
        self.slots(bank) < self.experts(bank)
    }

    /// The slot of each expert, or [`ABSENT`]: what the device's table holds for this bank.
    pub fn table(&self, bank: usize) -> &[u32] {
        self.banks.get(bank).map_or(&[], |b| &b.table)
    }

    /// Where an expert lives.
    pub fn slot_of(&self, bank: usize, expert: u16) -> Option<u32> {
        self.banks.get(bank)?.slot_of(expert)
    }

    /// Who lives in a slot.
    pub fn owner(&self, bank: usize, slot: u32) -> Option<u16> {
        *self.banks.get(bank)?.owner.get(slot as usize)?
    }

    /// Experts of a bank that have a slot.
    pub fn resident(&self, bank: usize) -> usize {
        self.banks.get(bank).map_or(0, |b| b.resident)
    }

    /// Tokens seen so far.
    pub fn now(&self) -> u32 {
        self.now
    }

    /// Tokens after which a use counts half.
    pub fn half_life(&self) -> f32 {
        self.half_life
    }

    /// Time goes on by `tokens`.
    pub fn tick(&mut self, tokens: u32) {
        self.now = self.now.saturating_add(tokens);
    }

    /// One token used this expert, now; whether it is resident does not matter.
    pub fn touch(&mut self, bank: usize, expert: u16) {
        if let Some(heat) = self.banks.get_mut(bank).and_then(|b| b.heat.get_mut(usize::from(expert))) {
            heat.touch(self.now, self.half_life);
        }
    }

    /// How hot each expert is.
    pub fn heat(&self, bank: usize) -> &[Heat] {
        self.banks.get(bank).map_or(&[], |b| &b.heat)
    }

    /// Sets how hot each expert is: from a profile, or from a device that kept its own count. A list of another length is
    /// ignored; counts that are negative or not finite become 0, and uses in the future happen now.
    pub fn set_heat(&mut self, bank: usize, heat: &[Heat]) {
        let now = self.now;
        let Some(bank) = self.banks.get_mut(bank).filter(|b| b.heat.len() == heat.len()) else { return };
        let sound = |h: &Heat| {
            let usable = h.count.is_finite() && h.count > 0.0;
            if usable { Heat { count: h.count, last: h.last.min(now) } } else { Heat::default() }
        };
        bank.heat = heat.iter().map(sound).collect();
    }

    /// How hot an expert is now ([`Heat::score`]); −∞ where it was never used or does not exist.
    pub fn score(&self, bank: usize, expert: u16) -> f32 {
        let heat = self.banks.get(bank).and_then(|b| b.heat.get(usize::from(expert)));
        heat.map_or(f32::NEG_INFINITY, |h| h.score(self.now, self.half_life))
    }

    /// A free slot, else the slot of the coldest expert for which `keep` is false. Ties: the lowest slot. `None` where all are
    /// kept.
    pub fn victim(&self, bank: usize, keep: &dyn Fn(u16) -> bool) -> Option<u32> {
        let mut coldest: Option<(f32, u32)> = None;
        for (slot, owner) in self.banks.get(bank)?.slots() {
            let Some(expert) = owner else { return Some(slot) };
            let score = self.score(bank, expert);
            if coldest.is_none_or(|(least, _)| score < least) && !keep(expert) {
                coldest = Some((score, slot));
            }
        }
        coldest.map(|(_, slot)| slot)
    }

    /// Puts an expert into a slot; returns who was evicted. An expert that lives elsewhere moves: its old slot is free then.
    pub fn place(&mut self, bank: usize, expert: u16, slot: u32) -> Option<u16> {
        let bank = self.banks.get_mut(bank)?;
        let old = *bank.table.get(usize::from(expert))?;
        if slot as usize >= bank.owner.len() || old == slot {
            return None;
        }
        let evicted = bank.clear(slot);
        if old != ABSENT {
            bank.clear(old);
        }
        bank.table[usize::from(expert)] = slot;
        bank.owner[slot as usize] = Some(expert);
        bank.resident += 1;
        evicted
    }

    /// Nobody lives in this slot any more, as after an upload that failed; returns who did.
    pub fn clear_slot(&mut self, bank: usize, slot: u32) -> Option<u16> {
        self.banks.get_mut(bank)?.clear(slot)
    }

    /// Of the experts `missed`, those that should move in, with the slots they would take: at most `most`, the hottest first,
    /// each to a slot of its own. Free slots go to anybody; else an expert must be hotter than the one it evicts by more than
    /// `margin` (in log2 of the decayed count: 1 is twice as hot), and evicts neither one of `missed` nor one for which `keep` is
    /// true. Places nothing.
    pub fn admissions(
        &self,
        bank: usize,
        missed: &[u16],
        keep: &dyn Fn(u16) -> bool,
        most: usize,
        margin: f32,
    ) -> Vec<(u16, u32)> {
        let Some(b) = self.banks.get(bank) else { return Vec::new() };
        let distinct: BTreeSet<u16> = missed.iter().copied().filter(|&e| usize::from(e) < b.table.len()).collect();
        let absent = distinct.iter().copied().filter(|&e| b.slot_of(e).is_none());
        let mut candidates: Vec<(f32, u16)> = absent.map(|e| (self.score(bank, e), e)).collect();
        if candidates.is_empty() || most == 0 {
            return Vec::new();
        }
        // Stable: of equally hot experts the one with the lower number comes first, and of equally cold ones that in the lower
        // slot leaves.
        candidates.sort_by(|x, y| y.0.total_cmp(&x.0));
        let seat = |(slot, owner): (u32, Option<u16>)| match owner {
            None => Some((None, slot)),
            Some(e) if distinct.contains(&e) || keep(e) => None,
            Some(e) => Some((Some(self.score(bank, e)), slot)),
        };
        let mut seats: Vec<(Option<f32>, u32)> = b.slots().filter_map(seat).collect();
        seats.sort_by(|x, y| match (x.0, y.0) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            (x, y) => x.is_some().cmp(&y.is_some()),
        });
        // Candidates cool and residents warm along the lists: after the first pair that does not fit, none does.
        let fits = |&((hot, _), (cold, _)): &((f32, u16), (Option<f32>, u32))| cold.is_none_or(|cold| hot > cold + margin);
        candidates.into_iter().zip(seats).take(most).take_while(fits).map(|((_, expert), (_, slot))| (expert, slot)).collect()
    }

    /// Takes over the table that the device has kept by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first inconsistency (no such bank, another length, a slot out of range, two experts in one
    /// slot); then nothing changes.
    pub fn adopt(&mut self, bank: usize, table: &[u32]) -> Result<()> {
        let banks = self.banks.len();
        let wrong = |what: String| Error::Invalid(format!("residency table of bank {bank}: {what}"));
        let Some(b) = self.banks.get_mut(bank) else { return Err(wrong(format!("there are {banks} banks"))) };
        if table.len() != b.table.len() {
            return Err(wrong(format!("{} entries for {} experts", table.len(), b.table.len())));
        }
        let mut owner = vec![None; b.owner.len()];
        for (expert, &slot) in (0..=u16::MAX).zip(table) {
            if slot == ABSENT {
                continue;
            }
            match owner.get_mut(slot as usize) {
                None => return Err(wrong(format!("expert {expert} in slot {slot} of {}", b.owner.len()))),
                Some(Some(other)) => return Err(wrong(format!("experts {other} and {expert} both in slot {slot}"))),
                Some(free) => *free = Some(expert),
            }
        }
        b.resident = owner.iter().flatten().count();
        b.owner = owner;
        b.table.copy_from_slice(table);
        Ok(())
    }

    /// Checks every invariant: table and slots are inverse to each other, slots are in range, counts are right, heat is sound.
    ///
    /// # Errors
    /// The first invariant that does not hold: a bug in this module.
    pub fn check(&self) -> Result<(), String> {
        for (i, b) in self.banks.iter().enumerate() {
            for (expert, &slot) in b.table.iter().enumerate() {
                let lives = |owner: &Option<u16>| owner.map(usize::from) == Some(expert);
                if slot != ABSENT && !b.owner.get(slot as usize).is_some_and(lives) {
                    return Err(format!("bank {i}: expert {expert} is said to be in slot {slot} and is not"));
                }
            }
            for (slot, owner) in b.slots() {
                if let Some(expert) = owner
                    && b.table.get(usize::from(expert)) != Some(&slot)
                {
                    return Err(format!("bank {i}: slot {slot} holds expert {expert}, the table says otherwise"));
                }
            }
            let (seated, housed) = (b.table.iter().filter(|&&s| s != ABSENT).count(), b.owner.iter().flatten().count());
            if seated != b.resident || housed != b.resident {
                return Err(format!("bank {i}: {} residents, {seated} in the table, {housed} in slots", b.resident));
            }
            if b.heat.len() != b.table.len() {
                return Err(format!("bank {i}: {} experts, heat of {}", b.table.len(), b.heat.len()));
            }
            if let Some(expert) = b.heat.iter().position(|h| !(h.count.is_finite() && h.count >= 0.0 && h.last <= self.now)) {
                return Err(format!(
                    "bank {i}: the heat of expert {expert} is unsound at {}: {:?}",
                    self.now,
                    b.heat.get(expert)
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod history;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::*;

    pub(super) const NONE: &dyn Fn(u16) -> bool = &|_| false;

    #[test]
    fn free_slots_come_first_and_then_the_coldest() {
        let mut r = Residency::new(&[(4, 2)], 8.0);
        assert!(r.is_partial(0));
        assert_eq!(r.victim(0, NONE), Some(0));
        assert_eq!(r.place(0, 3, 0), None);
        assert_eq!(r.victim(0, NONE), Some(1));
        assert_eq!(r.place(0, 1, 1), None);
        // Neither was used: the lowest slot; then the one that was not used; then the one that was used longer ago.
        assert_eq!(r.victim(0, NONE), Some(0));
        r.touch(0, 3);
        assert_eq!(r.victim(0, NONE), Some(1));
        r.tick(1);
        r.touch(0, 1);
        assert_eq!(r.victim(0, NONE), Some(0));
        assert_eq!(r.victim(0, &|e| e == 3), Some(1));
        assert_eq!(r.victim(0, &|_| true), None);
        assert_eq!(r.place(0, 0, 0), Some(3));
        assert_eq!(r.table(0), [0, 1, ABSENT, ABSENT]);
        assert_eq!((r.slot_of(0, 3), r.owner(0, 0), r.resident(0)), (None, Some(0), 2));
    }

    #[test]
    fn an_expert_that_moves_leaves_its_slot() {
        let mut r = Residency::new(&[(4, 3)], 8.0);
        r.place(0, 0, 0);
        r.place(0, 1, 1);
        assert_eq!(r.place(0, 0, 1), Some(1));
        assert_eq!((r.table(0), r.owner(0, 0), r.resident(0)), (&[1, ABSENT, ABSENT, ABSENT][..], None, 1));
        assert_eq!(r.place(0, 0, 1), None);
        assert_eq!((r.clear_slot(0, 1), r.clear_slot(0, 1), r.resident(0)), (Some(0), None, 0));
        r.check().unwrap();
    }

    #[test]
    fn admission_takes_the_hottest_for_the_coldest() {
        let mut r = Residency::new(&[(8, 4)], f32::INFINITY);
        let uses = [5, 1, 3, 0, 4, 2, 9, 0];
        for (expert, &n) in (0u16..).zip(&uses) {
            (0..n).for_each(|_| r.touch(0, expert));
        }
        for slot in 0..4u16 {
            r.place(0, slot, u32::from(slot)); // uses 5, 1, 3, 0
        }
        // 4 is used 4 times, 6 nine times: they take the slots of 3 (never used) and of 1.
        assert_eq!(r.admissions(0, &[4, 6, 4], NONE, 9, 0.0), [(6, 3), (4, 1)]);
        assert_eq!(r.admissions(0, &[4, 6], NONE, 1, 0.0), [(6, 3)]);
        assert_eq!(r.admissions(0, &[4, 6], &|e| e == 3, 9, 0.0), [(6, 1), (4, 2)]);
        // Only one that is twice as hot, and more: 5 was used twice, 1 once.
        assert_eq!(r.admissions(0, &[5], &|e| e == 3, 9, 0.0), [(5, 1)]);
        assert_eq!(r.admissions(0, &[5], &|e| e == 3, 9, 1.0), []);
        // Nobody evicts one of the same token; resident, unknown and colder experts are not admitted.
        assert_eq!(r.admissions(0, &[5, 3, 1, 2, 200], NONE, 9, 0.0), []);
        assert_eq!(r.admissions(0, &[7], NONE, 9, 0.0), []);
        assert_eq!(r.admissions(1, &[6], NONE, 9, 0.0), []);
        // A free slot is anybody's.
        r.clear_slot(0, 2);
        assert_eq!(r.admissions(0, &[7], NONE, 9, 5.0), [(7, 2)]);
        assert_eq!(r.admissions(0, &[7, 6], NONE, 9, 0.0), [(6, 2)]);
    }

    #[test]
    fn a_table_of_the_device_is_taken_over_or_refused() {
        let mut r = Residency::new(&[(3, 2), (2, 2)], 8.0);
        r.place(0, 0, 0);
        r.place(1, 1, 1);
        r.adopt(0, &[ABSENT, 1, 0]).unwrap();
        assert_eq!((r.owner(0, 0), r.owner(0, 1), r.resident(0), r.slot_of(1, 1)), (Some(2), Some(1), 2, Some(1)));
        let refusals = [
            (0, &[0, 0, ABSENT][..], "experts 0 and 1 both in slot 0"),
            (0, &[0, 2, ABSENT], "expert 1 in slot 2 of 2"),
            (0, &[0, 1], "2 entries for 3 experts"),
            (2, &[], "there are 2 banks"),
        ];
        for (bank, table, what) in refusals {
            let said = r.adopt(bank, table).unwrap_err().to_string();
            assert!(said.contains(what) && said.contains(&format!("bank {bank}")), "{said}");
            assert_eq!((r.table(0), r.table(1)), (&[ABSENT, 1, 0][..], &[ABSENT, 1][..]));
            r.check().unwrap();
        }
    }

    #[test]
    fn heat_from_elsewhere_is_made_sound() {
        let mut r = Residency::new(&[(3, 1)], f32::NAN);
        assert_eq!(r.half_life(), HALF_LIFE);
        r.tick(5);
        let heat = |count, last| Heat { count, last };
        r.set_heat(0, &[heat(2.0, 9), heat(f32::NAN, 1), heat(-1.0, 1)]);
        assert_eq!(r.heat(0), [heat(2.0, 5), Heat::default(), Heat::default()]);
        r.set_heat(0, &[Heat::default()]);
        assert_eq!(r.score(0, 0), 1.0);
        r.check().unwrap();
    }

    #[test]
    fn what_does_not_exist_changes_nothing() {
        let mut r = Residency::new(&[(2, 1)], 8.0);
        r.place(0, 1, 0);
        assert_eq!((r.place(0, 2, 0), r.place(0, 0, 1), r.place(1, 0, 0), r.place(0, 0, ABSENT)), (None, None, None, None));
        assert_eq!((r.clear_slot(0, 1), r.clear_slot(1, 0), r.victim(1, NONE)), (None, None, None));
        r.touch(0, 2);
        r.touch(1, 0);
        assert_eq!((r.slot_of(0, 9), r.owner(0, 9), r.score(0, 9), r.table(1).len()), (None, None, f32::NEG_INFINITY, 0));
        assert_eq!((r.table(0), r.experts(1), r.slots(1), r.resident(1), r.is_partial(1)), (&[ABSENT, 0][..], 0, 0, 0, false));
        r.check().unwrap();
    }
}
