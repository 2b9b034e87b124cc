/* The only process of the emulated machine: runs /program with the arguments in /arguments, one a line, says how it
   ended, and powers off. */
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { most_arguments = 30 };

static char text[4096];

int main(void) {
    char *arguments[most_arguments + 2] = {"/program"};
    FILE *file = fopen("/arguments", "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        int count = 1;
        for (char *line = strtok(text, "\n"); line && count <= most_arguments; line = strtok(NULL, "\n"))
            arguments[count++] = line;
    }
    mount("proc", "/proc", "proc", 0, 0);
    int status = 127 << 8;
    pid_t child = fork();
    if (child == 0) {
        execv(arguments[0], arguments);
        _exit(127);
    }
    waitpid(child, &status, 0);
    printf("exit status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    fflush(stdout);
    tcdrain(STDOUT_FILENO); /* or the serial line loses what it has not yet sent */
    reboot(RB_POWER_OFF);
    return 0;
}
