// Texts cut into runs of characters that met the same fate. Offsets count code points, as the server's do.

export const KEPT = Infinity;

/**
 * What became of each stretch of a text.
 *
 * A word that several windows contain counts by the window that kept it longest.
 *
 * @param {string} text The text.
 * @param {object[]} windows Windows of an explanation.
 * @param {"question" | "context"} segment Which words of the windows belong to the text.
 * @param {{start: number, end: number} | null} answer Where the answer is.
 * @returns {{text: string, layer: number | null, answer: boolean}[]} The stretches, in order, which together are the
 *   text; `layer` dropped it, KEPT if none did, null for what no window contains.
 */
export function runs(text, windows, segment, answer) {
  const characters = Array.from(text);
  const layers = new Array(characters.length).fill(-1);
  for (const word of windows.flatMap((window) => window.words)) {
    if (word.segment !== segment) continue;
    const layer = word.dropped_at ?? KEPT;
    for (let i = word.start; i < word.end; i++) layers[i] = Math.max(layers[i], layer);
  }
  bridgeSpaces(characters, layers);
  const found = [];
  const inAnswer = (i) => answer !== null && answer.start <= i && i < answer.end;
  for (let start = 0, end = 0; start < characters.length; start = end) {
    while (end < characters.length && layers[end] === layers[start] && inAnswer(end) === inAnswer(start)) end++;
    const layer = layers[start] < 0 ? null : layers[start];
    found.push({ text: characters.slice(start, end).join(""), layer, answer: inAnswer(start) });
  }
  return found;
}

/** Give spaces between two words of the same fate that fate as well. */
function bridgeSpaces(characters, layers) {
  for (let i = 1; i < characters.length; i++) {
    if (layers[i] >= 0 || layers[i - 1] < 0) continue;
    let end = i;
    while (end < characters.length && layers[end] < 0 && characters[end].trim() === "") end++;
    if (end < characters.length && layers[end] === layers[i - 1]) layers.fill(layers[i - 1], i, end);
    i = end;
  }
}

/** For each layer, the number of tokens that it kept, in all windows together. */
export function keptByLayer(windows) {
  return windows[0].kept.map((_, layer) => windows.reduce((sum, window) => sum + window.kept[layer], 0));
}

export function tokensOf(windows) {
  return windows.reduce((sum, window) => sum + window.tokens.length, 0);
}
