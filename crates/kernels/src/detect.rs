//! What this CPU has that there are kernels for, and what of it the system lets a process use.
//!
//! Vector registers are the system's to save, and `is_x86_feature_detected!` knows whether it does. Tile registers
//! (AMX) need more: the CPU's word for each kind of product, the system's that it saves their state (XCR0), and on
//! Linux a permission that a process asks for, since that state is 8 KiB a thread. Sandboxes refuse it, and old kernels
//! don't know it. Without any of these the CPU counts as one without AMX.

use std::sync::OnceLock;

/// What there are kernels for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Units {
    /// AVX2, FMA and conversions of f16.
    pub(super) avx2: bool,
    /// Products of bytes, in AVX2.
    pub(super) avx_vnni: bool,
    /// AVX-512F.
    pub(super) avx512: bool,
    /// Products of bytes, in AVX-512.
    pub(super) vnni: bool,
    /// Products of bfloat16, in AVX-512.
    pub(super) bf16: bool,
    /// Tiles, with products of bfloat16 and of bytes.
    pub(super) amx: bool,
    /// Products of bytes, in NEON.
    pub(super) dotprod: bool,
    /// Those in small matrices.
    pub(super) i8mm: bool,
}

/// What CPU and system report, before anything is asked for.
#[derive(Debug, Clone, Copy)]
struct Reported {
    /// Of these, `amx` says nothing.
    vectors: Units,
    /// CPUID leaf 7, subleaf 0: EDX.
    extended: u32,
    /// XCR0: the states that the system saves; 0 where it can't be read.
    saved: u64,
}

/// Of CPUID leaf 7's EDX: AMX-BF16, AMX-TILE, AMX-INT8. A CPU that has one of them has had all so far; there are no
/// kernels for one that hasn't.
const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
/// The state of tile registers: its number in XCR0 and in permissions.
const TILE_DATA: u64 = 18;
/// XCR0 with the states of tile registers and of their shapes.
const TILES_SAVED: u64 = 1 << TILE_DATA | 1 << 17;

impl Units {
    /// Those of this CPU; found out once, since a permission is asked for.
    pub(super) fn of_this_cpu() -> Self {
        static FOUND: OnceLock<Units> = OnceLock::new();
        *FOUND.get_or_init(|| Self::among(reported(), &Linux))
    }

    /// What can be used of what is reported; the permission is asked for only where all else is there.
    fn among(reported: Reported, system: &impl System) -> Self {
        let Reported {
            vectors,
            extended,
            saved,
        } = reported;
        let avx512 = vectors.avx2 && vectors.avx512;
        let vnni = avx512 && vectors.vnni;
        // No CPU has had bfloat16 without VNNI: one kernel less for each of the sets.
        let bf16 = vnni && vectors.bf16;
        let tiles = extended & AMX == AMX && saved & TILES_SAVED == TILES_SAVED;
        Self {
            avx2: vectors.avx2,
            avx_vnni: vectors.avx2 && vectors.avx_vnni,
            avx512,
            vnni,
            bf16,
            amx: bf16 && tiles && permitted(system),
            ..vectors
        }
    }
}

/// Asks for the use of tiles. That it was granted counts only once the system confirms it: one that knows nothing
/// of the request may still answer that all is well.
fn permitted(system: &impl System) -> bool {
    system.request(TILE_DATA) == 0
        && system
            .granted()
            .is_some_and(|states| states & 1 << TILE_DATA != 0)
}

/// Where a process asks for the use of a state of registers.
trait System {
    /// 0, or an error's number, negative.
    fn request(&self, state: u64) -> i64;
    /// The states that it may use, by their bits.
    fn granted(&self) -> Option<u64>;
}

/// This system; if it is not Linux, no state is granted.
struct Linux;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use std::arch::asm;

    const ARCH_PRCTL: i64 = 158;
    const GET_PERMISSION: u64 = 0x1022;
    const REQUEST_PERMISSION: u64 = 0x1023;

    /// # Safety
    /// `argument` is what the request wants.
    unsafe fn arch_prctl(request: u64, argument: u64) -> i64 {
        let answer;
        // SAFETY: a system call changes rax, rcx and r11 alone, and memory as the caller vouches for.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => answer,
                in("rdi") request,
                in("rsi") argument,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        answer
    }

    impl super::System for super::Linux {
        fn request(&self, state: u64) -> i64 {
            // SAFETY: the argument is a number.
            unsafe { arch_prctl(REQUEST_PERMISSION, state) }
        }

        fn granted(&self) -> Option<u64> {
            let mut states = 0u64;
            // SAFETY: the argument is the address of 64 bits, which are written.
            let answer = unsafe { arch_prctl(GET_PERMISSION, &raw mut states as u64) };
            (answer == 0).then_some(states)
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
impl System for Linux {
    fn request(&self, _: u64) -> i64 {
        -1
    }
    fn granted(&self) -> Option<u64> {
        None
    }
}

#[cfg(target_arch = "x86_64")]
fn reported() -> Reported {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// # Safety
    /// The system has switched XGETBV on.
    #[target_feature(enable = "xsave")]
    unsafe fn saved() -> u64 {
        // SAFETY: the caller's.
        unsafe { _xgetbv(0) }
    }

    let greatest_leaf = __cpuid(0).eax;
    let extended = match greatest_leaf {
        7.. => __cpuid_count(7, 0).edx,
        _ => 0,
    };
    let can_ask = __cpuid(1).ecx & 1 << 27 != 0;
    Reported {
        vectors: Units {
            avx2: is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c"),
            avx_vnni: is_x86_feature_detected!("avxvnni"),
            avx512: is_x86_feature_detected!("avx512f"),
            vnni: is_x86_feature_detected!("avx512vnni"),
            bf16: is_x86_feature_detected!("avx512bf16"),
            ..Units::default()
        },
        extended,
        saved: match can_ask {
            // SAFETY: OSXSAVE says that it is on.
            true => unsafe { saved() },
            false => 0,
        },
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn reported() -> Reported {
    #[cfg(target_arch = "aarch64")]
    let vectors = Units {
        dotprod: std::arch::is_aarch64_feature_detected!("dotprod"),
        i8mm: std::arch::is_aarch64_feature_detected!("i8mm"),
        ..Units::default()
    };
    #[cfg(not(target_arch = "aarch64"))]
    let vectors = Units::default();
    Reported {
        vectors,
        extended: 0,
        saved: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A system that answers as told, and counts how often it was asked.
    struct Answers {
        request: i64,
        granted: Option<u64>,
        asked: Cell<usize>,
    }

    impl Answers {
        fn new(request: i64, granted: Option<u64>) -> Self {
            let asked = Cell::new(0);
            Self {
                request,
                granted,
                asked,
            }
        }
    }

    impl System for Answers {
        fn request(&self, state: u64) -> i64 {
            assert_eq!(state, 18);
            self.asked.set(self.asked.get() + 1);
            self.request
        }
        fn granted(&self) -> Option<u64> {
            self.granted
        }
    }

    fn willing() -> Answers {
        Answers::new(0, Some(0x602e7))
    }

    /// As a Sapphire Rapids reports itself.
    const ALL: Reported = Reported {
        vectors: Units {
            avx2: true,
            avx_vnni: true,
            avx512: true,
            vnni: true,
            bf16: true,
            amx: false,
            dotprod: false,
            i8mm: false,
        },
        extended: 0xffdd_4432,
        saved: 0x602e7,
    };

    #[test]
    fn tiles_are_used_where_cpu_and_system_have_them() {
        let system = willing();
        let units = Units::among(ALL, &system);
        let expected = Units {
            amx: true,
            ..ALL.vectors
        };
        assert_eq!((units, system.asked.get()), (expected, 1));
    }

    #[test]
    fn tiles_that_the_system_refuses_leave_all_else() {
        let refusals = [
            // EPERM, of a sandbox; EINVAL, of a kernel before 5.16; ENOSYS; ENOSPC, of a thread with a small stack for
            // signals.
            Answers::new(-1, Some(0x602e7)),
            Answers::new(-22, None),
            Answers::new(-38, None),
            Answers::new(-28, Some(0x202e7)),
            // What says yes to all, and what then can't say what it granted.
            Answers::new(0, Some(0x202e7)),
            Answers::new(0, Some(0)),
            Answers::new(0, None),
        ];
        for system in refusals {
            assert_eq!(Units::among(ALL, &system), ALL.vectors);
            assert_eq!(system.asked.get(), 1);
        }
    }

    #[test]
    fn tiles_are_asked_for_only_where_they_are_and_are_saved() {
        let bit = |n: u32| 1u32 << n;
        let mut reports = vec![
            Reported { saved: 0, ..ALL },
            Reported {
                saved: ALL.saved & !(1 << 17),
                ..ALL
            },
            Reported {
                saved: ALL.saved & !(1 << 18),
                ..ALL
            },
        ];
        reports.extend([22, 24, 25].map(|n| Reported {
            extended: ALL.extended & !bit(n),
            ..ALL
        }));
        for report in reports {
            let system = willing();
            let units = Units::among(report, &system);
            assert_eq!((units, system.asked.get()), (ALL.vectors, 0), "{report:x?}");
        }
    }

    /// All combinations: nothing is used without what its kernels need beside it.
    #[test]
    fn each_unit_needs_those_before_it() {
        for bits in 0..128u32 {
            let has = |n: u32| bits & 1 << n != 0;
            let reported = Reported {
                vectors: Units {
                    avx2: has(0),
                    avx_vnni: has(6),
                    avx512: has(1),
                    vnni: has(2),
                    bf16: has(3),
                    ..Units::default()
                },
                extended: if has(4) { AMX } else { 0 },
                saved: if has(5) { TILES_SAVED } else { 0 },
            };
            let system = willing();
            let units = Units::among(reported, &system);
            let upto = |n: u32| (0..=n).all(has);
            let expected = Units {
                avx2: upto(0),
                avx_vnni: has(0) && has(6),
                avx512: upto(1),
                vnni: upto(2),
                bf16: upto(3),
                amx: upto(5),
                ..Units::default()
            };
            assert_eq!(units, expected, "{reported:?}");
        }
    }

    #[test]
    fn what_this_cpu_has_is_found_and_stays() {
        let first = Units::of_this_cpu();
        assert_eq!(first, Units::of_this_cpu());
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            first.avx512,
            first.avx2 && is_x86_feature_detected!("avx512f")
        );
        if first.amx {
            assert!(
                Linux
                    .granted()
                    .is_some_and(|states| states & TILES_SAVED == TILES_SAVED)
            );
        }
    }
}
