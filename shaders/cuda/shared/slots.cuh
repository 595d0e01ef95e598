// Words of the tables of experts in slots and of the record of choices.

// Has no slot.
const u32 ABSENT = 0xffffffffu;
// In the record: the expert was resident; a kernel fetched it.
const u32 HIT = 0x10000u;
const u32 GATHERED = 0x20000u;
