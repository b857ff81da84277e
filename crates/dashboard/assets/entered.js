// Keeps the page's key where only pages of this origin can read it, and goes on. The key never stands in an address.

import { KEPT_AS } from "./key.js";

const key = document.querySelector("meta[name=page-key]").content;
localStorage.setItem(KEPT_AS, key);
location.replace("/");
