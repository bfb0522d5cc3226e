import { characters } from './characters.js';

/** Why a text is not worth reading. */
export type GarbageReason = 'empty' | 'broken-characters' | 'hardly-chinese' | 'repetition';

/** A text whose letters are Chinese characters for less than this share is not Chinese. */
const MIN_HAN_SHARE = 0.3;

/** A unit of up to 20 characters, four times or more in a row. */
const REPEATED_RUN = /(.{1,20}?)\1{3,}/gsu;

/** Shorter runs are laughter, dots or exclamation marks. */
const MIN_RUN_LENGTH = 16;

/**
 * The rule for garbage, in this order:
 * 1. `empty`: nothing but white space;
 * 2. `broken-characters`: U+FFFD, a lone surrogate, or a control character other than tab and line break;
 * 3. `hardly-chinese`: no letter at all, or fewer than 30 % of the letters are Chinese characters;
 * 4. `repetition`: a unit of at most 20 characters repeated at least four times in a row over at least 16 characters.
 *
 * Null for a text that passes; that says nothing of whether it makes sense or is funny.
 */
export function garbageReason(text: string): GarbageReason | null {
  if (text.trim() === '') return 'empty';
  if (/\uFFFD|\p{Cs}/u.test(text) || /[^\P{Cc}\t\n\r]/u.test(text)) return 'broken-characters';
  const letters = text.match(/\p{L}/gu)?.length ?? 0;
  const han = text.match(/\p{Script=Han}/gu)?.length ?? 0;
  if (letters === 0 || han < MIN_HAN_SHARE * letters) return 'hardly-chinese';
  for (const [run] of text.matchAll(REPEATED_RUN)) {
    if (characters(run).length >= MIN_RUN_LENGTH) return 'repetition';
  }
  return null;
}

export function isGarbage(text: string): boolean {
  return garbageReason(text) !== null;
}
