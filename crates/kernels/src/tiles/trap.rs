//! AMX on CPUs without it: each of its instructions is trapped as one that the CPU doesn't know and is done in plain
//! Rust, so that the assembly is tested everywhere. What the CPU knows is left to it.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::Once;

use half::bf16;
use libc::{c_int, c_void, siginfo_t, ucontext_t};

use super::{AmxBf16, LINE, Product, Unit};
use crate::bf16::{Rounds, STEP};

/// A unit whose instructions are trapped.
pub(crate) struct Trapped<U>(PhantomData<U>);

impl<U: Unit> Unit for Trapped<U> {
    const ROWS: usize = U::ROWS;
    const TILES: usize = U::TILES;

    unsafe fn begin(height: usize) {
        install();
        // SAFETY: what the CPU lacks is done by `trap`, here and below.
        unsafe { U::begin(height) }
    }
    unsafe fn product(product: Product) {
        // SAFETY: see begin.
        unsafe { U::product(product) }
    }
    unsafe fn end() {
        // SAFETY: see begin.
        unsafe { U::end() }
    }
}

impl Rounds for Trapped<AmxBf16> {
    unsafe fn round(from: *const f32, to: *mut bf16) {
        for i in 0..STEP {
            // SAFETY: the caller's, here and below.
            unsafe { *to.add(i) = bf16::from_f32(*from.add(i)) }
        }
    }
    unsafe fn pair(rows: [*const f32; 2], to: *mut bf16) {
        for i in 0..2 * STEP {
            // SAFETY: see round.
            unsafe { *to.add(i) = bf16::from_f32(*rows[i % 2].add(i / 2)) }
        }
    }
}

/// A thread's tile registers.
struct Tiles {
    lines: [[[u8; LINE]; 16]; 8],
    /// Lines of each, and bytes in them; 0 where there is no shape.
    shapes: [(usize, usize); 8],
}

thread_local! {
    static TILES: UnsafeCell<Tiles> = const {
        UnsafeCell::new(Tiles {
            lines: [[[0; LINE]; 16]; 8],
            shapes: [(0, 0); 8],
        })
    };
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: zeros are a good sigaction, whose handler is one that takes what SA_SIGINFO gives.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = trap as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            let answer = libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut());
            assert_eq!(answer, 0);
        }
    });
}

extern "C" fn trap(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives the context of the thread that was trapped, which runs on once we return; its tiles are
    // nobody else's.
    let done = unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        TILES.with(|tiles| step(registers, &mut *tiles.get()))
    };
    if done.is_none() {
        // SAFETY: to be called at any time. What is not ours is trapped once more, and ends the process.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
    }
}

/// Where the general registers are in a context, by their numbers in instructions.
const REGISTERS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Does one instruction; `None` if it is none of AMX's, or one on tiles of shapes that don't fit.
///
/// # Safety
/// The instruction pointer is at an instruction, whose memory is there.
unsafe fn step(registers: &mut [i64; 23], tiles: &mut Tiles) -> Option<()> {
    let start = registers[libc::REG_RIP as usize] as *const u8;
    // SAFETY: the longest of AMX's has 10 bytes with what it refers to; the code goes on for as many.
    let code: [u8; 10] = unsafe { start.cast::<[u8; 10]>().read() };
    // VEX with three bytes, the map of 0F38, neither W nor L.
    if code[0] != 0xc4 || code[1] & 0x1f != 2 || code[2] & 0x84 != 0 {
        return None;
    }
    let (second_source, prefix) = (usize::from(!code[2] >> 3 & 15), code[2] & 3);
    let (opcode, operands) = (code[3], code[4]);
    let (mode, tile, low) = (
        operands >> 6,
        usize::from(operands >> 3 & 7),
        usize::from(operands & 7),
    );
    let register = |number: usize| registers[REGISTERS[number] as usize] as usize;
    let high = |bit: u8| usize::from(!code[1] >> bit & 1) * 8;
    // Of an operand in memory: where it is, what lies between its lines, and the instruction's length.
    let (mut length, mut base, mut apart) = (5, low + high(5), 0);
    if mode != 3 && low == 4 {
        let scaled = code[5];
        length = 6;
        base = usize::from(scaled & 7) + high(5);
        let index = usize::from(scaled >> 3 & 7) + high(6);
        if index != 4 {
            apart = register(index) << (scaled >> 6);
        }
    }
    let mut address = register(base);
    match mode {
        0 if base % 8 == 5 => return None,
        1 => {
            address = address.wrapping_add_signed(isize::from(code[length] as i8));
            length += 1;
        }
        2 => {
            let far = [0, 1, 2, 3].map(|i| code[length + i]);
            address = address.wrapping_add_signed(i32::from_le_bytes(far) as isize);
            length += 4;
        }
        _ => {}
    }
    match (opcode, prefix, mode) {
        (0x49, 0, 3) => tiles.shapes = [(0, 0); 8],
        // SAFETY: an operand of 64 bytes.
        (0x49, 0, _) => tiles.configure(unsafe { &*(address as *const [u8; 64]) })?,
        (0x49, 3, 3) => tiles.lines[tile] = [[0; LINE]; 16],
        (0x4b, 2 | 3, 0..3) => {
            let (lines, bytes) = tiles.shapes[tile];
            for (i, line) in tiles.lines[tile][..lines].iter_mut().enumerate() {
                let place = (address + i * apart) as *mut u8;
                // SAFETY: the operand's memory.
                unsafe {
                    match prefix {
                        3 => {
                            *line = [0; LINE];
                            place.copy_to_nonoverlapping(line.as_mut_ptr(), bytes);
                        }
                        _ => place.copy_from_nonoverlapping(line.as_ptr(), bytes),
                    }
                }
            }
        }
        (0x5c, 2, 3) => tiles.multiply(tile, low, second_source, |sum, x, w| {
            let floats = |four: [u8; 4]| {
                let [a, b, c, d] = four;
                [[a, b], [c, d]].map(|two| bf16::from_le_bytes(two).to_f32())
            };
            let ([x0, x1], [w0, w1]) = (floats(x), floats(w));
            (f32::from_le_bytes(sum) + x0 * w0 + x1 * w1).to_le_bytes()
        })?,
        (0x5e, 1, 3) => tiles.multiply(tile, low, second_source, |sum, x, w| {
            let products = (0..4).map(|i| i32::from(x[i]) * i32::from(w[i] as i8));
            (i32::from_le_bytes(sum) + products.sum::<i32>()).to_le_bytes()
        })?,
        _ => return None,
    }
    registers[libc::REG_RIP as usize] += length as i64;
    Some(())
}

impl Tiles {
    fn configure(&mut self, shapes: &[u8; 64]) -> Option<()> {
        let good = shapes[0] == 1 && shapes[1..16].iter().all(|&byte| byte == 0);
        self.lines = [[[0; LINE]; 16]; 8];
        for (tile, shape) in self.shapes.iter_mut().enumerate() {
            let bytes = u16::from_le_bytes([shapes[16 + 2 * tile], shapes[17 + 2 * tile]]);
            *shape = (usize::from(shapes[48 + tile]), usize::from(bytes));
        }
        let fits = |&(lines, bytes): &(usize, usize)| lines <= 16 && bytes <= LINE;
        (good && self.shapes.iter().all(fits)).then_some(())
    }

    /// Adds to each four bytes of a tile what `add` makes of them and those of a line of `x` and a column of `w`.
    fn multiply(
        &mut self,
        to: usize,
        x: usize,
        w: usize,
        add: impl Fn([u8; 4], [u8; 4], [u8; 4]) -> [u8; 4],
    ) -> Option<()> {
        let ((lines, bytes), (x_lines, x_bytes)) = (self.shapes[to], self.shapes[x]);
        if lines == 0 || x_lines != lines || self.shapes[w] != (x_bytes / 4, bytes) {
            return None;
        }
        let four = |line: &[u8; LINE], i: usize| [0, 1, 2, 3].map(|byte| line[4 * i + byte]);
        for line in 0..lines {
            for column in 0..bytes / 4 {
                let mut sum = four(&self.lines[to][line], column);
                for k in 0..x_bytes / 4 {
                    let (x, w) = (&self.lines[x][line], &self.lines[w][k]);
                    sum = add(sum, four(x, k), four(w, column));
                }
                self.lines[to][line][4 * column..][..4].copy_from_slice(&sum);
            }
        }
        Some(())
    }
}
