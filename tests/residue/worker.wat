;; A worker that looks for what others may have left in its memory, its table and its global, and then leaves as much as it
;; can. Its payload is two letters: what it leaves (`f`, a few pages; `s`, a byte in each page of wasm; `l`, all), and how it
;; ends (`r`, it returns; `t`, by a trap; `o`, by its timeout; `m`, without memory; `d`, without a stack).
;;
;; It exits with 66 if its memory isn't as it should be, with 67 if its table isn't, and with 68 if its global isn't.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 32)
  ;; On both sides of what stays mapped.
  (data (i32.const 32768) "image")
  (data (i32.const 1114112) "image")
  (table $table 1000 funcref)
  (elem (table $table) (i32.const 5) func $start)
  (global $global (mut i64) (i64.const 7))

  (func $bytes (result i32) (i32.shl (memory.size) (i32.const 16)))

  (func $image (param $at i32) (result i64)
    (if (result i64) (i32.or (i32.eq (local.get $at) (i32.const 32768)) (i32.eq (local.get $at) (i32.const 1114112)))
      (then (i64.const 0x6567616d69))
      (else (i64.const 0))))

  (func $look_at_memory (local $at i32)
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (call $image (local.get $at)))
        (then (call $proc_exit (i32.const 66))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (call $bytes)))))

  (func $look_at_table (local $at i32)
    (loop $next
      (if (i32.ne (ref.is_null (table.get $table (local.get $at))) (i32.ne (local.get $at) (i32.const 5)))
        (then (call $proc_exit (i32.const 67))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (table.size $table)))))

  (func $leave (param $what i32) (local $at i32)
    (table.fill $table (i32.const 0) (ref.func $start) (table.size $table))
    (global.set $global (i64.const -1))
    (if (i32.eq (local.get $what) (i32.const 0x66 (; f ;)))
      (then (memory.fill (i32.const 0) (i32.const 0xab) (i32.const 40000))))
    (if (i32.eq (local.get $what) (i32.const 0x6c (; l ;)))
      (then (memory.fill (i32.const 0) (i32.const 0xab) (call $bytes))))
    (if (i32.eq (local.get $what) (i32.const 0x73 (; s ;)))
      (then
        (loop $next
          (i32.store8 (local.get $at) (i32.const 0xab))
          (local.set $at (i32.add (local.get $at) (i32.const 65536)))
          (br_if $next (i32.lt_u (local.get $at) (call $bytes)))))))

  (func $recur (param i64) (call $recur (i64.add (local.get 0) (i64.const 1))))

  (func $end (param $how i32)
    (if (i32.eq (local.get $how) (i32.const 0x74 (; t ;))) (then unreachable))
    (if (i32.eq (local.get $how) (i32.const 0x6f (; o ;))) (then (loop $again (br $again))))
    (if (i32.eq (local.get $how) (i32.const 0x64 (; d ;))) (then (call $recur (i64.const 0))))
    (if (i32.eq (local.get $how) (i32.const 0x6d (; m ;)))
      (then (drop (memory.grow (i32.const 10000))) unreachable)))

  (func $start (export "_start") (local $what i32) (local $how i32)
    (call $look_at_memory)
    (call $look_at_table)
    (if (i64.ne (global.get $global) (i64.const 7)) (then (call $proc_exit (i32.const 68))))
    (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then (call $proc_exit (i32.const 69))))
    (if (i32.eq (table.grow $table (ref.null func) (i32.const 20000)) (i32.const -1))
      (then (call $proc_exit (i32.const 69))))
    (call $look_at_memory)
    (call $look_at_table)
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 2))
    (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (local.set $what (i32.load8_u (i32.const 64)))
    (local.set $how (i32.load8_u (i32.const 65)))
    (call $leave (local.get $what))
    (call $end (local.get $how))))
