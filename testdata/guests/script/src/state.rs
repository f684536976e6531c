//! Operations on what outlives a stream: queues and metrics.

use serde_json::Value;

use crate::VM;
use crate::abi;
use crate::ops::{say, shown, text};

pub fn queue(name: &str, argument: &Value) {
    let of = |n: usize| text(argument.get(n).unwrap_or(&Value::Null));
    let known = |name: &str| VM.with_borrow(|vm| vm.queues.get(name).copied().unwrap_or(vm.last_token));
    match name {
        "queue" | "queue_of" => {
            let (vm, queue) = if name == "queue" { (String::new(), text(argument)) } else { (of(0), of(1)) };
            let mut token = 0;
            let status = unsafe {
                if name == "queue" {
                    abi::proxy_register_shared_queue(queue.as_ptr(), queue.len(), &mut token)
                } else {
                    abi::proxy_resolve_shared_queue(vm.as_ptr(), vm.len(), queue.as_ptr(), queue.len(), &mut token)
                }
            };
            if status == 0 {
                VM.with_borrow_mut(|vm| vm.queues.insert(queue.clone(), token));
            }
            say(&format!("{name} {queue} -> {status}"));
        }
        "enqueue" => {
            let data = of(1);
            say(&format!("enqueue {} -> {}", of(0), unsafe { abi::proxy_enqueue_shared_queue(known(&of(0)), data.as_ptr(), data.len()) }));
        }
        _ => {
            let queue = text(argument);
            let (status, data) = abi::output(|data, size| unsafe { abi::proxy_dequeue_shared_queue(known(&queue), data, size) });
            say(&format!("dequeue {queue} -> {status} {}", shown(&data)));
        }
    }
}

pub fn metric(name: &str, argument: &Value) {
    let of = |n: usize| argument.get(n).cloned().unwrap_or(Value::Null);
    if name == "define" {
        let (kind, metric, mut id) = (of(0).as_u64().unwrap_or(0) as u32, text(&of(1)), 0);
        let status = unsafe { abi::proxy_define_metric(kind, metric.as_ptr(), metric.len(), &mut id) };
        VM.with_borrow_mut(|vm| vm.metrics.insert(metric.clone(), id));
        return say(&format!("define {metric} -> {status} {id}"));
    }
    let metric = if name == "read_metric" { text(argument) } else { text(&of(0)) };
    let id = VM.with_borrow(|vm| vm.metrics.get(&metric).copied().unwrap_or(9999));
    let amount = of(1).as_i64().unwrap_or(0);
    let mut value = 0;
    let status = unsafe {
        match name {
            "add_metric" => abi::proxy_increment_metric(id, amount),
            "record" => abi::proxy_record_metric(id, amount as u64),
            _ => abi::proxy_get_metric(id, &mut value),
        }
    };
    let seen = if name == "read_metric" { format!(" {value}") } else { String::new() };
    say(&format!("{name} {metric} -> {status}{seen}"));
}
