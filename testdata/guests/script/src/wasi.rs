//! Operations on the WASI functions that every Envoy links.

use std::ptr::null_mut;

use crate::abi;
use crate::ops::say;

pub fn call(function: &str) {
    let mut buffer = [0u8; 64];
    let bytes = buffer.as_mut_ptr();
    let (mut count, mut size) = (0usize, 0usize);
    let status = unsafe {
        match function {
            "random" => abi::random_get(bytes, 64),
            "random_none" => abi::random_get(bytes, 0),
            "random_too_much" => abi::random_get(vec![0u8; 65 * 1024].as_mut_ptr(), 65 * 1024),
            "random_nowhere" => abi::random_get(0xffff_0000u32 as *mut u8, 64),
            "realtime" => abi::clock_time_get(0, 0, &mut 0),
            "monotonic" => abi::clock_time_get(1, 0, &mut 0),
            "cpu_time" => abi::clock_time_get(2, 0, &mut 0),
            "clock_nowhere" => abi::clock_time_get(0, 0, 0xffff_0000u32 as *mut u64),
            "environ" => return environ(),
            "args" => {
                let status = abi::args_sizes_get(&mut count, &mut size) + abi::args_get(null_mut(), null_mut());
                return say(&format!("wasi args -> {status} {count} {size}"));
            }
            "fd_read" => abi::fd_read(0, &[bytes as usize, 64], 1, &mut size),
            "fd_seek" => abi::fd_seek(1, 0, 0, &mut 0),
            "fd_close" => abi::fd_close(1),
            "fdstat_1" | "fdstat_2" | "fdstat_7" => {
                let fd = u32::from(function.as_bytes()[7] - b'0');
                let status = abi::fd_fdstat_get(fd, bytes);
                return say(&format!("wasi {function} -> {status} {:?}", &buffer[..24]));
            }
            "set_flags" => abi::fd_fdstat_set_flags(1, 0),
            "prestat" => abi::fd_prestat_get(3, bytes),
            "prestat_dir" => abi::fd_prestat_dir_name(3, bytes, 64),
            "path_open" => abi::path_open(3, 0, b"file".as_ptr(), 4, 0, 0, 0, 0, bytes.cast()),
            "yield" => abi::sched_yield(),
            "poll" => {
                count = 9;
                let status = abi::poll_oneoff(bytes, bytes, 1, &mut count);
                return say(&format!("wasi poll -> {status} {count}"));
            }
            "exit" => {
                abi::proc_exit(3);
                0
            }
            "nothing" => write(1, ""),
            "newlines" => write(1, "two\n\n"),
            "inner" => write(1, "a\nb\n"),
            "written_nowhere" => abi::fd_write(1, &[bytes as usize, 1], 1, 0xffff_0000u32 as *mut usize),
            "write_nowhere" => abi::fd_write(1, 0xffff_0000u32 as *const [usize; 2], 1, &mut size),
            "stdout" | "stderr" | "fd3" => {
                let fd = ["", "stdout", "stderr", "fd3"].iter().position(|name| *name == function);
                write(fd.unwrap_or(0) as u32, &format!("to {function}\n"))
            }
            _ => 9999,
        }
    };
    say(&format!("wasi {function} -> {status}"));
}

fn write(fd: u32, text: &str) -> u32 {
    let iov = [text.as_ptr() as usize, text.len()];
    unsafe { abi::fd_write(fd, &iov, 1, &mut 0) }
}

/// The environment, in the order of its names.
fn environ() {
    let (mut count, mut size) = (0, 0);
    let status = unsafe { abi::environ_sizes_get(&mut count, &mut size) };
    let mut array = vec![null_mut(); count.max(1)];
    let mut buffer = vec![0u8; size.max(1)];
    let got = unsafe { abi::environ_get(array.as_mut_ptr(), buffer.as_mut_ptr()) };
    say(&format!("wasi environ -> {status} {got} {count} {size}"));
    let mut entries: Vec<_> = buffer[..size].split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).collect();
    entries.sort();
    entries.iter().for_each(|entry| say(&format!("  {}", entry.escape_ascii())));
}
