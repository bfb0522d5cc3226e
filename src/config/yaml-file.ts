import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  LineCounter,
  type Node,
  parseDocument,
  type YAMLMap,
} from 'yaml';
import { UserError } from '../errors.js';
import { notASection, type Problem, type Setting, unknownKey } from './settings.js';
import { dottedKeys, type KeyNode, type Section } from './tree.js';

/** What a file holds, sorted by whom it concerns. */
export interface FileSettings {
  /** Settings of the stage that was asked for. */
  readonly own: Setting[];
  /** Settings of other stages: a recipe serves them all. */
  readonly foreign: Setting[];
  readonly problems: Problem[];
}

/**
 * Reads the settings of a YAML file.
 *
 * @param own the keys of the stage; what is under them is kept in `own`
 * @param recipe the keys of all stages; what is only here is kept in `foreign`, what is in neither is a problem
 * @throws UserError for a file that cannot be read, is not UTF-8 or not YAML, with the line
 */
export async function readYamlFile(file: string, own: Section, recipe: Section): Promise<FileSettings> {
  const lines = new LineCounter();
  const document = parseDocument(await readText(file), { lineCounter: lines, prettyErrors: false });
  const place = (offset: number | undefined): string => {
    if (offset === undefined) return file;
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const [fault] = [...document.errors, ...document.warnings];
  if (fault !== undefined) {
    throw new UserError({
      code: 'config.yaml',
      message: `The configuration is not valid YAML: ${fault.message}`,
      where: place(fault.pos[0]),
      fix: 'Mend this line; two spaces indent a level, and a text with a colon, # or { needs quotes.',
    });
  }
  const root = document.contents;
  if (root === null || (isScalar(root) && root.value === null)) return { own: [], foreign: [], problems: [] };
  if (!isMap(root)) {
    throw new UserError({
      code: 'config.yaml',
      message: 'The configuration is not a list of `key: value` lines.',
      where: place(root.range[0]),
      fix: 'Write, for example, "seed: 1" or "sft:" and below it, indented, "epochs: 2".',
    });
  }
  return new Walk(document, file, place, own, recipe).run(root);
}

/** Goes through a document along the trees of known keys. */
class Walk {
  readonly #found: FileSettings = { own: [], foreign: [], problems: [] };
  readonly #known: string[];

  constructor(
    private readonly document: Document,
    private readonly file: string,
    private readonly place: (offset: number | undefined) => string,
    private readonly own: Section,
    private readonly recipe: Section,
  ) {
    this.#known = [...new Set([own, recipe].flatMap((tree) => [...dottedKeys(tree)].map(([dotted]) => dotted)))];
  }

  run(root: YAMLMap): FileSettings {
    this.#section(root, [], this.own, this.recipe);
    return this.#found;
  }

  #section(map: YAMLMap, path: readonly string[], own: Section | undefined, recipe: Section | undefined): void {
    for (const pair of map.items) {
      const name = String(isScalar(pair.key) ? pair.key.value : pair.key);
      const where = this.place(isNode(pair.key) ? pair.key.range?.[0] : undefined);
      const value = isAlias(pair.value) ? pair.value.resolve(this.document) : pair.value;
      this.#pair(
        [...path, name],
        isNode(value) ? value : undefined,
        where,
        own?.keys.get(name),
        recipe?.keys.get(name),
      );
    }
  }

  #pair(
    path: readonly string[],
    value: Node | undefined,
    where: string,
    own: KeyNode | undefined,
    recipe: KeyNode | undefined,
  ): void {
    if (own === undefined && recipe === undefined) {
      this.#found.problems.push(unknownKey(path, where, this.#known));
      return;
    }
    const ownSection = own?.kind === 'section' ? own : undefined;
    const recipeSection = recipe?.kind === 'section' ? recipe : undefined;
    const plain: unknown = value?.toJS(this.document) ?? null;
    if (isMap(value) && (ownSection ?? recipeSection) !== undefined) {
      this.#section(value, path, ownSection, recipeSection);
    } else if (own === undefined || ownSection !== undefined) {
      // An empty section changes nothing.
      if (plain === null) return;
      if (own === undefined && recipe?.kind !== 'section') this.#keep(this.#found.foreign, path, plain, where);
      else this.#found.problems.push(notASection(path, where));
    } else {
      this.#keep(this.#found.own, path, plain, where);
    }
  }

  #keep(list: Setting[], path: readonly string[], value: unknown, where: string): void {
    list.push({ path, value, where, base: dirname(this.file) });
  }
}

async function readText(file: string): Promise<string> {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(await readFile(file));
  } catch (error) {
    if (error instanceof TypeError) {
      throw new UserError({
        code: 'config.encoding',
        message: 'The configuration is not UTF-8.',
        where: file,
        fix: 'Save it as UTF-8.',
        cause: error,
      });
    }
    throw new UserError({
      code: 'config.unreadable',
      message: `The configuration cannot be read: ${error instanceof Error ? error.message : String(error)}.`,
      where: file,
      fix: 'Check the path.',
      cause: error,
    });
  }
}
