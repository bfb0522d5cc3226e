import { execFile } from 'node:child_process';
import { access, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));

/** A project that has the built package among its dependencies, with the programs of docs/library.md compiled. */
let project: string;

beforeAll(async () => {
  await run(process.execPath, [join(root, 'tools/build.mjs')]);
  project = await mkdtemp(join(tmpdir(), 'library-'));
  await mkdir(join(project, 'node_modules'));
  await symlink(root, join(project, 'node_modules/duanzi'), 'junction');
  await writeFile(join(project, 'package.json'), '{ "type": "module" }\n');
  const text = await readFile(join(root, 'docs/library.md'), 'utf8');
  const programs = [...text.matchAll(/^```ts\n(.*?)^```$/gmsu)].map(([, code]) => code!);
  expect(programs).toHaveLength(2);
  await Promise.all(programs.map((code, i) => writeFile(join(project, `program${i}.ts`), code)));
  const rewards = await readFile(join(root, 'docs/rewards.md'), 'utf8');
  await writeFile(join(project, 'reward.ts'), /^```ts\n(.*?)^```$/msu.exec(rewards)![1]!);
  await writeFile(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        strict: true,
        target: 'es2022',
        module: 'nodenext',
        types: ['node'],
        typeRoots: [join(root, 'node_modules/@types')],
      },
    }),
  );
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  await run(process.execPath, [tsc, '-p', project]).catch((error: unknown) => {
    throw new Error((error as { stdout: string }).stdout, { cause: error });
  });
}, 300_000);

afterAll(() => rm(project, { recursive: true, force: true }));

it('trains, fine-tunes and writes as docs/library.md shows', async () => {
  const { stdout } = await run(process.execPath, ['program0.js'], { cwd: project });
  expect(stdout.match(/^step 2: loss \d+\.\d+$/gmu)).toHaveLength(2);
  expect(stdout).toMatch(/^".*" (stop|length)$/mu);
  await access(join(project, 'runs/base/model/model.safetensors'));
  await access(join(project, 'runs/sft/adapter/adapter_model.safetensors'));
});

it('differentiates as docs/library.md shows', async () => {
  const { stdout } = await run(process.execPath, ['program1.js'], { cwd: project });
  const printed = (name: string): number[] =>
    new RegExp(`^${name} = (.*)$`, 'mu').exec(stdout)![1]!.split(' ').map(Number);
  const inputs = [-1, 0, 2];
  expect(printed('y')).toEqual([
    expect.closeTo(
      inputs.reduce((sum, x) => sum + x * Math.tanh(x), 0),
      5,
    ),
  ]);
  const slopes = inputs.map((x) => Math.tanh(x) + x / Math.cosh(x) ** 2);
  expect(printed('dy/dx')).toEqual(slopes.map((slope): unknown => expect.closeTo(slope, 5)));
});
