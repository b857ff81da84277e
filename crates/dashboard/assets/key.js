// The name under which the page's key is kept.

export const KEPT_AS = "wasmhost-page-key";
