;; An http component of which every other instance never gets ready: its start function traps where a random number is
;; odd.
(component
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-u64" (func (result u64)))))
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $incoming-request))
  (alias export $types "response-outparam" (type $response-outparam))
  (core func $random (canon lower (func $random "get-random-u64")))
  (core module $code
    (import "random" "u64" (func $random (result i64)))
    (func $start (if (i64.eqz (i64.and (call $random) (i64.const 1))) (then) (else unreachable)))
    (start $start)
    (func (export "handle") (param i32 i32)))
  (core instance $imports (export "u64" (func $random)))
  (core instance $code (instantiate $code (with "random" (instance $imports))))
  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $code "handle")))
  ;; An interface that takes imported resources is exported by a component of its own.
  (component $export
    (import "incoming-request" (type $incoming-request (sub resource)))
    (import "response-outparam" (type $response-outparam (sub resource)))
    (import "handle"
      (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))))
    (export "handle" (func $handle)))
  (instance $export (instantiate $export
    (with "incoming-request" (type $incoming-request))
    (with "response-outparam" (type $response-outparam))
    (with "handle" (func $handle))))
  (export "wasi:http/incoming-handler@0.2.0" (instance $export)))
