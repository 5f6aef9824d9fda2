/* Classifies a picture with a network in a .cvx file.
 *
 *   classify net.cvx picture.ppm [mean,mean,mean std,std,std]
 *
 * The picture is a PPM of 8 bits (P6), of a size that the network accepts; its numbers are scaled to 0 … 1, then have
 * the means taken off and are divided by the deviations, one for each of red, green and blue (default: 0 and 1).
 * Prints the five largest results with their indices. The file comes from Python:
 *
 *   convoxel.compile(network, image).save("net.cvx")
 */
#include <stdio.h>
#include <stdlib.h>

#include "convoxel.h"

static void give_up(const char* reason) {
  fprintf(stderr, "classify: %s\n", reason);
  exit(2);
}

/* Reads a PPM into numbers from 0 to 1, channels first; returns NULL if it is none. */
static float* read_ppm(const char* path, int* height, int* width) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) return NULL;
  int most = 0;
  float* pixels = NULL;
  if (fscanf(file, "P6 %d %d %d", width, height, &most) == 3 && most == 255 && fgetc(file) != EOF && *width > 0 &&
      *height > 0 && *width < 1 << 15 && *height < 1 << 15) {
    const size_t count = (size_t)*width * (size_t)*height;
    unsigned char* bytes = malloc(3 * count);
    pixels = malloc(3 * count * sizeof(float));
    if (bytes == NULL || pixels == NULL || fread(bytes, 3, count, file) != count) {
      free(pixels);
      pixels = NULL;
    } else {
      for (size_t i = 0; i < 3 * count; ++i) pixels[i % 3 * count + i / 3] = (float)bytes[i] / 255.0f;
    }
    free(bytes);
  }
  fclose(file);
  return pixels;
}

int main(int count, char** words) {
  if (count != 3 && count != 5) give_up("expected net.cvx picture.ppm [mean,mean,mean std,std,std]");
  convoxel_program* program = NULL;
  if (convoxel_load_file(words[1], &program) != CONVOXEL_OK) give_up(convoxel_last_error());
  int height = 0, width = 0;
  float* pixels = read_ppm(words[2], &height, &width);
  if (pixels == NULL) give_up("the picture is no PPM of 8 bits");
  if (count == 5) {
    float mean[3], deviation[3];
    if (sscanf(words[3], "%f,%f,%f", &mean[0], &mean[1], &mean[2]) != 3 ||
        sscanf(words[4], "%f,%f,%f", &deviation[0], &deviation[1], &deviation[2]) != 3) {
      give_up("means and deviations are three numbers each, such as 0.485,0.456,0.406");
    }
    const size_t area = (size_t)height * (size_t)width;
    for (size_t i = 0; i < 3 * area; ++i) pixels[i] = (pixels[i] - mean[i / area]) / deviation[i / area];
  }

  convoxel_tensor image = {NULL, pixels, (size_t)3 * (size_t)height * (size_t)width, 4, {1, 3, height, width}};
  convoxel_tensor scores = {0};
  if (convoxel_prepare(program, &image, 1, &scores, 1) != CONVOXEL_OK) give_up(convoxel_last_error());
  if (scores.axes != 2) give_up("the network's first result is no list of scores");
  const size_t classes = (size_t)scores.shape[1];
  scores.count = classes;
  scores.data = malloc(classes * sizeof(float));
  if (scores.data == NULL) give_up("there is not enough memory");
  if (convoxel_run(program, &image, 1, &scores, 1) != CONVOXEL_OK) give_up(convoxel_last_error());

  for (int rank = 0; rank < 5 && (size_t)rank < classes; ++rank) {
    size_t best = 0;
    for (size_t i = 1; i < classes; ++i) {
      if (scores.data[i] > scores.data[best]) best = i;
    }
    printf("%zu %.9g\n", best, scores.data[best]);
    scores.data[best] = -1e38f;
  }
  free(scores.data);
  free(pixels);
  convoxel_free(program);
  return 0;
}
