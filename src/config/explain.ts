import type { z } from 'zod';
import { UserError } from '../errors.js';
import type { Winners } from './merge.js';
import type { Problem } from './settings.js';
import { dottedKeys, type Leaf, type Section, showValue } from './tree.js';

/** What a schema complained about, in words: the key, its value, where that came from and what is right. */
export function explainIssue(issue: z.core.$ZodIssue, winners: Winners, tree: Section): Problem {
  const path = issue.path.map(String);
  const dotted = path.join('.');
  const where = nearestAbove(path, winners)?.[1].where;
  if (issue.code === 'custom') {
    const fix = typeof issue.params?.['fix'] === 'string' ? issue.params['fix'] : 'change one of them';
    return { code: 'config.combination', message: `${dotted} ${issue.message}.`, where, fix: sentence(fix) };
  }
  const [key, node] = nearestAbove(path, new Map(dottedKeys(tree))) ?? [dotted, undefined];
  const leaf = node?.kind === 'leaf' ? node : undefined;
  const value = valueAt(path, winners);
  if (value === undefined) {
    const help = leaf === undefined ? '' : ` (${leaf.help})`;
    return { code: 'config.missing', message: `${dotted} is missing${help}.`, where, fix: howToGive(dotted, leaf) };
  }
  const expects = leaf?.expects ?? (node?.kind === 'table' ? 'a text by a name' : issue.message);
  return {
    code: 'config.value',
    message: `${dotted} is ${typeof value === 'string' ? JSON.stringify(value) : showValue(value)}; expected ${expects}.`,
    where,
    fix: `Set ${key} to ${expects}.`,
  };
}

/** One error for all problems: a message that people read from top to bottom. */
export function asError(problems: readonly Problem[]): UserError {
  const [first, second] = problems;
  if (first !== undefined && second === undefined) {
    const { code, message, where, fix } = first;
    return new UserError({ code, message, fix, ...(where === undefined ? {} : { where }) });
  }
  const lines = problems.map(
    ({ message, where, fix }) => `  ${message} ${fix}${where === undefined ? '' : ` (${where})`}`,
  );
  return new UserError({
    code: 'config.invalid',
    message: [`${problems.length} settings are wrong:`, ...lines].join('\n'),
    fix: 'Mend these settings.',
  });
}

/** The entry of the longest beginning of `path` that `known` has. */
function nearestAbove<T>(path: readonly string[], known: ReadonlyMap<string, T>): [string, T] | undefined {
  for (let length = path.length; length > 0; length -= 1) {
    const dotted = path.slice(0, length).join('.');
    const found = known.get(dotted);
    if (found !== undefined) return [dotted, found];
  }
  return undefined;
}

/** The value that was given at `path`, which may reach into a list or table. */
function valueAt(path: readonly string[], winners: Winners): unknown {
  const setting = nearestAbove(path, winners)?.[1];
  if (setting === undefined) return undefined;
  return path.slice(setting.path.length).reduce<unknown>((value, name) => {
    if (typeof value !== 'object' || value === null) return value;
    return (value as Record<string, unknown>)[name];
  }, setting.value);
}

function howToGive(dotted: string, leaf: Leaf | undefined): string {
  return leaf?.flag === undefined ? `Set ${dotted} in the configuration.` : `Give ${leaf.flag}.`;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
