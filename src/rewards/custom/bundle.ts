import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { SourceMap, type SourceMapPayload } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build, type BuildFailure, type BuildResult } from 'esbuild';
import { UserError } from '../../errors.js';

/** A user's file with all that it imports, as one module for a worker thread. */
export interface Bundle {
  readonly code: string;
  /** SHA-256 of the files that it was made of. */
  readonly sha256: string;
  /** Where a place in the code came from, `file:line:column`; undefined for what is not the user's. */
  origin(line: number, column: number): string | undefined;
}

const OUTPUT = 'reward.mjs';
const SERVE = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './serve.ts' : './serve.js', import.meta.url));
/** What is not the user's: this folder, and the lines that put both together. */
const OWN_FOLDER = path.dirname(SERVE);

/**
 * Transpiles and bundles a reward with esbuild. Packages that the file imports are found from its folder, as are files
 * that it reads beside `import.meta.url`.
 *
 * @throws UserError when the file is not there, or does not compile, with file, line and column
 */
export async function bundleReward(file: string): Promise<Bundle> {
  await requireFile(file);
  const folder = path.dirname(file);
  const url = JSON.stringify(pathToFileURL(file).href);
  const result = await compile(file, folder, url);
  const output = (suffix: string): string => result.outputFiles!.find((each) => each.path.endsWith(suffix))!.text;
  const map = new SourceMap(JSON.parse(output('.map')) as SourceMapPayload);
  const hash = createHash('sha256');
  const inputs = Object.keys(result.metafile!.inputs).map((name) => path.resolve(folder, name));
  for (const input of inputs.filter((name) => isUsers(name)).sort()) hash.update(await readFile(input)).update('\0');
  return {
    code: output('.mjs'),
    sha256: hash.digest('hex'),
    origin: (line, column) => {
      const entry = map.findEntry(line - 1, column - 1);
      if (!('originalSource' in entry)) return undefined;
      const source = path.resolve(folder, entry.originalSource);
      return isUsers(source) ? `${source}:${entry.originalLine + 1}:${entry.originalColumn + 1}` : undefined;
    },
  };
}

const isUsers = (source: string): boolean =>
  path.isAbsolute(source) && path.dirname(source) !== OWN_FOLDER && !source.endsWith('<stdin>');

async function compile(file: string, folder: string, url: string): Promise<BuildResult> {
  try {
    return await build({
      stdin: {
        contents: `import { serve } from ${JSON.stringify(SERVE)};\nimport * as reward from ${JSON.stringify(file)};\nserve(reward);\n`,
        resolveDir: folder,
        loader: 'js',
      },
      absWorkingDir: folder,
      outfile: path.join(folder, OUTPUT),
      write: false,
      // Nothing is written, so a user's file may bear the same name.
      allowOverwrite: true,
      metafile: true,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20',
      sourcemap: 'external',
      logLevel: 'silent',
      define: {
        'import.meta.url': url,
        'import.meta.filename': JSON.stringify(file),
        'import.meta.dirname': JSON.stringify(folder),
      },
      // CommonJS packages within an ES module need one.
      banner: {
        js: `import { createRequire as _createRequire } from 'node:module';const require = _createRequire(${url});`,
      },
    });
  } catch (error) {
    throw isBuildFailure(error) ? doesNotCompile(file, error) : error;
  }
}

const isBuildFailure = (error: unknown): error is BuildFailure => error instanceof Error && 'errors' in error;

function doesNotCompile(file: string, { errors }: BuildFailure): UserError {
  const [first] = errors;
  const place = first?.location;
  return new UserError({
    code: 'reward.syntax',
    message: `The reward does not compile: ${first?.text ?? 'esbuild failed'}.`,
    where: place ? `${path.resolve(path.dirname(file), place.file)}:${place.line}:${place.column + 1}` : file,
    fix: 'Mend this line.',
  });
}

async function requireFile(file: string): Promise<void> {
  const fix = 'Give a TypeScript or JavaScript file whose default export is the reward; docs/rewards.md shows one.';
  try {
    if ((await stat(file)).isFile()) return;
  } catch (cause) {
    throw new UserError({
      code: 'reward.missing',
      message: 'The reward file cannot be read.',
      where: file,
      fix,
      cause,
    });
  }
  throw new UserError({ code: 'reward.missing', message: 'The reward is a folder, not a file.', where: file, fix });
}
