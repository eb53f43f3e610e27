/** Names matched by patterns as in a shell, like Python's `fnmatch.fnmatchcase`. */

/** Whether a name fits a pattern: `*` any text, `?` one character, `[abc]`, `[a-z]` and `[!abc]` one of a set. */
export function matchesPattern(name: string, pattern: string): boolean {
  return new RegExp(`^(?:${translate(pattern)})$`, "su").test(name);
}

function translate(pattern: string): string {
  let out = "";
  for (let at = 0; at < pattern.length; at++) {
    const mark = pattern.charAt(at);
    const end = mark === "[" ? pattern.indexOf("]", at + (pattern[at + 1] === "!" ? 3 : 2)) : -1;
    if (mark === "*") {
      if (!out.endsWith(".*")) out += ".*"; // a second star would only make the search slow
    } else if (mark === "?") out += ".";
    else if (end > 0) {
      out += oneOf(pattern.slice(at + 1, end));
      at = end;
    } else out += escape(mark);
  }
  return out;
}

function oneOf(members: string): string {
  const isNegated = members.startsWith("!");
  let out = "";
  const set = isNegated ? members.slice(1) : members;
  for (let at = 0; at < set.length; at++) {
    const isRange = set[at + 1] === "-" && at + 2 < set.length;
    const [low, high] = [set.charAt(at), isRange ? set.charAt(at + 2) : set.charAt(at)];
    if (low <= high) out += low === high ? escape(low) : `${escape(low)}-${escape(high)}`;
    if (isRange) at += 2;
  }
  if (out === "") return isNegated ? "." : "(?!)"; // a set of nothing but ranges that run backwards
  return `[${isNegated ? "^" : ""}${out}]`;
}

/** A character that means itself, also inside a set. */
function escape(mark: string): string {
  return /[\\^$.*+?()[\]{}|/-]/.test(mark) ? `\\${mark}` : mark;
}
