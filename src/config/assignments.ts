import { parse as parseYaml } from 'yaml';
import { UserError } from '../errors.js';
import { type Problem, notASection, type Setting, unknownKey } from './settings.js';
import { dottedKeys, type KeyNode, type Section } from './tree.js';

/** The trees of known keys: the stage's own, and those of all stages. */
export interface KnownKeys {
  readonly own: Section;
  readonly recipe: Section;
}

/** Splits `key=value`. */
export function splitAssignment(text: string): [string, string] {
  const at = text.indexOf('=');
  if (at > 0) return [text.slice(0, at).trim(), text.slice(at + 1)];
  throw new UserError({
    code: 'config.assignment',
    message: `"${text}" is not of the form key=value.`,
    where: '--set',
    fix: 'Write, for example, --set sft.learningRate=1e-4.',
  });
}

/**
 * A value from the command line as a setting. Text is read as its key needs it: a text as it stands (in double quotes
 * with YAML's escapes), anything else as YAML; a list may be separated by commas.
 *
 * @param where how people know this value: `--set seed`, `--seed`
 * @param base folder that a relative path is relative to
 */
export function readAssignment(
  dotted: string,
  value: unknown,
  where: string,
  base: string,
  known: KnownKeys,
): Setting | Problem {
  const names = dotted.split('.');
  const found = locate(names, known.own);
  if (found === undefined) {
    if (locate(names, known.recipe) !== undefined) return notConcerned(dotted, where);
    return unknownKey(
      names,
      where,
      [...dottedKeys(known.own)].map(([name]) => name),
    );
  }
  const { node, path, entry } = found;
  if (node.kind === 'section') return notASection(path, where);
  if (typeof value !== 'string') return { path, value, where, base };
  if (node.kind === 'table') {
    if (entry === undefined) return needsEntry(dotted, where);
    return { path, entry, value: unquote(value), where, base };
  }
  return { path, value: node.type === 'text' ? unquote(value) : plainValue(value, node.type), where, base };
}

interface Located {
  node: KeyNode;
  path: string[];
  /** The name within a table, dots and all. */
  entry?: string;
}

function locate(names: readonly string[], tree: Section): Located | undefined {
  let node: KeyNode = tree;
  for (const [depth, name] of names.entries()) {
    if (node.kind === 'table') return { node, path: names.slice(0, depth), entry: names.slice(depth).join('.') };
    const next: KeyNode | undefined = node.kind === 'section' ? node.keys.get(name) : undefined;
    if (next === undefined) return undefined;
    node = next;
  }
  return { node, path: [...names] };
}

function unquote(text: string): string {
  if (!/^".*"$/s.test(text)) return text;
  const value = yamlOr(text);
  return typeof value === 'string' ? value : text;
}

function plainValue(text: string, type: 'number' | 'flag' | 'list'): unknown {
  const value = yamlOr(text);
  if (type !== 'list' || typeof value !== 'string') return value;
  return value.split(',').map((item) => item.trim());
}

/** The text as YAML, or itself where it is none: the schema then says what was expected. */
function yamlOr(text: string): unknown {
  try {
    return parseYaml(text);
  } catch {
    return text;
  }
}

function notConcerned(dotted: string, where: string): Problem {
  return {
    code: 'config.other-stage',
    message: `${dotted} belongs to another stage and changes nothing here.`,
    where,
    fix: 'Remove it, or put it into a recipe, where each stage takes what concerns it.',
  };
}

function needsEntry(dotted: string, where: string): Problem {
  return {
    code: 'config.table',
    message: `${dotted} holds texts by name.`,
    where,
    fix: `Name one: --set ${dotted}.NAME=TEXT.`,
  };
}
