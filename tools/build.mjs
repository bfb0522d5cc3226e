/**
 * Compiles src/ into dist/: `npm ci` calls it through `prepare`, and so may npx.
 *
 * Nothing is done when dist/ was made from the present sources. A build is made beside dist/ and swapped in whole, so
 * that neither a running command nor a second build at the same time meets half of one.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const dist = path.join(root, 'dist');
const inputs = hashOfInputs();

if (!isCurrent()) {
  const fresh = mkdtempSync(path.join(root, '.dist-'));
  try {
    compile(fresh);
    writeFileSync(path.join(fresh, '.inputs'), inputs);
    swapIn(fresh);
  } catch (error) {
    console.error(`duanzi: the build failed: ${error.message}`);
    process.exitCode = 1;
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

/** A hash of everything that dist/ is made from: names and contents. */
function hashOfInputs() {
  const sources = readdirSync(path.join(root, 'src'), { recursive: true })
    .map((name) => path.join('src', name))
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'));
  const hash = createHash('sha256');
  for (const name of [...sources, 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'].sort()) {
    hash
      .update(`${name}\0`)
      .update(readFileSync(path.join(root, name)))
      .update('\0');
  }
  return hash.digest('hex');
}

function isCurrent() {
  const mark = path.join(dist, '.inputs');
  return existsSync(mark) && readFileSync(mark, 'utf8') === inputs;
}

function compile(folder) {
  const tsc = findCompiler();
  const argv = [tsc, '-p', path.join(root, 'tsconfig.build.json'), '--outDir', folder];
  if (spawnSync(process.execPath, argv, { stdio: 'inherit' }).status !== 0)
    throw new Error('the sources do not compile');
}

function findCompiler() {
  try {
    return createRequire(import.meta.url).resolve('typescript/bin/tsc');
  } catch {
    throw new Error('TypeScript is missing: run npm ci without --omit=dev');
  }
}

/** Puts a finished build in the place of dist/. Whoever else does so at the same moment has the same sources. */
function swapIn(fresh) {
  const old = `${fresh}-old`;
  for (let attempt = 0; !isCurrent(); attempt += 1) {
    try {
      if (existsSync(dist)) renameSync(dist, old);
      renameSync(fresh, dist);
    } catch (error) {
      if (attempt === 20) throw error;
    } finally {
      rmSync(old, { recursive: true, force: true });
    }
  }
}
