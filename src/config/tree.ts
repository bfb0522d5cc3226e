import { z } from 'zod';
import { NOTE } from './key.js';
import { STAGE_NAMES, type StageName, stageSchemas } from './stages.js';

/** A setting: one key that takes one value. */
export interface Leaf {
  readonly kind: 'leaf';
  readonly help: string;
  readonly type: 'text' | 'number' | 'flag' | 'list';
  /** What a right value is, as a noun phrase: `a whole number of at least 1`. */
  readonly expects: string;
  /** The default as people write it; absent where there is none. */
  readonly defaultText: string | undefined;
  readonly isPath: boolean;
  /** A path that may also be the name of a model on a hub. */
  readonly isModel: boolean;
  /** Commander's notation of the command-line flag, where the key has its own. */
  readonly flag: string | undefined;
  /** Dotted key of the recipe that stands in when this one is not given. */
  readonly from: string | undefined;
}

/** Names that people choose, each with a text. */
export interface Table {
  readonly kind: 'table';
  readonly help: string;
  readonly defaults: Readonly<Record<string, string>>;
}

/** A group of keys. */
export interface Section {
  readonly kind: 'section';
  readonly help: string;
  readonly keys: ReadonlyMap<string, KeyNode>;
}

export type KeyNode = Leaf | Table | Section;
type JsonSchema = z.core.JSONSchema.BaseSchema;

const trees = new Map<StageName, Section>();

/** The keys of a stage's configuration, read off its schema. */
export function keyTree(stage: StageName): Section {
  const known = trees.get(stage);
  if (known !== undefined) return known;
  const tree = sectionOf(z.toJSONSchema(stageSchemas[stage], { io: 'input' }));
  trees.set(stage, tree);
  return tree;
}

/** The keys of all stages together: what a recipe may hold, whichever command reads it. A section wins over a setting. */
export function recipeTree(): Section {
  const keys = new Map<string, KeyNode>();
  for (const stage of STAGE_NAMES) {
    for (const [name, node] of keyTree(stage).keys) {
      if (node.kind === 'section' || !keys.has(name)) keys.set(name, node);
    }
  }
  return { kind: 'section', help: 'A recipe.', keys };
}

/** Every dotted key below `section` with its node, sections too, in the order of the schema. */
export function* dottedKeys(section: Section, prefix = ''): Generator<[string, KeyNode]> {
  for (const [name, node] of section.keys) {
    const dotted = prefix + name;
    yield [dotted, node];
    if (node.kind === 'section') yield* dottedKeys(node, `${dotted}.`);
  }
}

function nodeOf(schema: JsonSchema): KeyNode {
  if (schema.properties !== undefined) return sectionOf(schema);
  if (schema.type === 'object') return tableOf(schema);
  return leafOf(schema);
}

function sectionOf(schema: JsonSchema): Section {
  const keys = Object.entries(schema.properties ?? {}).map(([name, child]): [string, KeyNode] => [
    name,
    nodeOf(child as JsonSchema),
  ]);
  return { kind: 'section', help: schema.description ?? '', keys: new Map(keys) };
}

function tableOf(schema: JsonSchema): Table {
  const defaults = z.record(z.string(), z.string()).parse(schema.default ?? {});
  return { kind: 'table', help: schema.description ?? '', defaults };
}

function leafOf(schema: JsonSchema): Leaf {
  return {
    kind: 'leaf',
    help: schema.description ?? '',
    type: typeOf(schema),
    expects: expectationOf(schema),
    defaultText:
      textNote(schema, 'defaultText') ?? (schema.default === undefined ? undefined : showValue(schema.default)),
    isPath: schema[NOTE.path] === true,
    isModel: schema[NOTE.model] === true,
    flag: textNote(schema, 'flag'),
    from: textNote(schema, 'from'),
  };
}

function textNote(schema: JsonSchema, name: keyof typeof NOTE): string | undefined {
  const note = schema[NOTE[name]];
  return typeof note === 'string' ? note : undefined;
}

function typeOf(schema: JsonSchema): Leaf['type'] {
  switch (schema.type) {
    case 'string':
      return 'text';
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
      return 'flag';
    case 'array':
      return 'list';
    default:
      throw new Error(`no kind of setting for the schema ${JSON.stringify(schema)}`);
  }
}

function expectationOf(schema: JsonSchema): string {
  if (schema.enum !== undefined) return `one of ${schema.enum.map(String).join(', ')}`;
  switch (schema.type) {
    case 'boolean':
      return 'true or false';
    case 'array':
      return `a list, each ${expectationOf((schema.items ?? {}) as JsonSchema)}`;
    case 'integer':
      return `a whole number${boundsOf(schema)}`;
    case 'number':
      return `a number${boundsOf(schema)}`;
    default:
      if (schema[NOTE.model] === true) return 'a path, or the name of a model on a hub';
      return schema[NOTE.path] === true ? 'a path' : 'a text';
  }
}

function boundsOf(schema: JsonSchema): string {
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum } = schema;
  const parts: string[] = [];
  if (exclusiveMinimum !== undefined) parts.push(`above ${exclusiveMinimum}`);
  else if (minimum !== undefined && minimum > -Number.MAX_SAFE_INTEGER) parts.push(`of at least ${minimum}`);
  if (exclusiveMaximum !== undefined) parts.push(`below ${exclusiveMaximum}`);
  else if (maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER) parts.push(`at most ${maximum}`);
  return parts.length === 0 ? '' : ` ${parts.join(' and ')}`;
}

/** A value as people write it in a configuration. */
export function showValue(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(showValue).join(', ');
  return JSON.stringify(value);
}
