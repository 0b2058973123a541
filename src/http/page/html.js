// Elements from templates, without a build.
import { h } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);

/** A number with its thousands apart. */
export const count = (n) => n.toLocaleString("en");

/** "1 document", "2 documents". */
export const several = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
